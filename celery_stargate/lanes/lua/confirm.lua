-- Take away the dead letters of messages whose receipt came after their outcome: they are stored.
--
-- ARGV: label, number of each (a message of a list has its place in its label, as a letter in its id)
-- Returns how many were taken. One that failed again since has another number, and stays.
local taken = 0

local function confirm(id, number)
  local found = letter_of(id)
  if not found or found.kind ~= 'm' or found.number ~= number then return end
  redis.call('HINCRBY', COUNTS, 'confirmed', 1)
  forget_letter(id)
  taken = taken + 1
end

for i = 1, GIVEN, 2 do
  confirm(ARGV[i], ARGV[i + 1])
  -- A replay's letter has the id of the first attempt.
  local original = string.gsub(ARGV[i], '%.replay%-%d+$', '')
  if original ~= ARGV[i] then confirm(original, ARGV[i + 1]) end
end
return taken
