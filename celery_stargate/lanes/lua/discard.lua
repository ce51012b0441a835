-- Take dead letters away.
--
-- ARGV: id, its last failure (epoch ms; a letter that failed again meanwhile stays), ...
-- Returns 1 for each that was taken, and 0 for each other.
local taken = {}
pass_when_full()
for i = 1, GIVEN, 2 do
  local found = letter_of(ARGV[i])
  if found and found.last == ARGV[i + 1] then
    redis.call('HINCRBY', COUNTS, 'discarded', 1)
    forget_letter(ARGV[i])
    taken[#taken + 1] = 1
  else
    taken[#taken + 1] = 0
  end
end
return taken
