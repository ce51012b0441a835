-- Delete keys that are of a wrong type: nothing could be read from them, or written. In one step, so
-- that nothing is deleted that another process has begun anew.
--
-- KEYS: as the callers give them. ARGV: the type of each.
-- Returns how many were deleted. Workers send their heartbeats, and callers announce their lanes,
-- again.
local deleted = 0
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)['ok']
  if found ~= ARGV[i] and found ~= 'none' then deleted = deleted + redis.call('DEL', key) end
end
return deleted
