-- Put dead letters back that were archived; one that is there stays as it is.
--
-- ARGV: id, kind, failures, first failure, last failure, number, cause, outcome, body (as in
--       dead_letters.lua), ...
-- Returns how many were put back. They begin their age anew, so that they are not outdated at once.
local now, restored = now_ms(), 0
for i = 1, GIVEN, 9 do
  if not redis.call('ZSCORE', DEAD, ARGV[i]) then
    keep_letter(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]),
      tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), ARGV[i + 6], ARGV[i + 7], ARGV[i + 8])
    redis.call('ZADD', DEAD, now, ARGV[i])
    redis.call('HINCRBY', COUNTS, 'restored', 1)
    restored = restored + 1
  end
end
prune_letters(now)
return restored
