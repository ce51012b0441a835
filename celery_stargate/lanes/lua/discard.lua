-- Take dead letters away.
--
-- ARGV: id, its last failure (epoch ms; a letter that failed again meanwhile stays), ...
-- Returns how many were taken.
local taken = 0
for i = 1, GIVEN, 2 do
  local found = letter_of(ARGV[i])
  if found and found.last == ARGV[i + 1] then
    redis.call('HINCRBY', COUNTS, 'discarded', 1)
    forget_letter(ARGV[i])
    taken = taken + 1
  end
end
return taken
