-- How a lane is made known to the workers; it is put before the scripts that do so.
--
-- Keys: these two of the registry, the last ones that a script gets.
--   lanes         sorted set: lane -> when it was last announced, epoch s
--   events        stream: what the workers watch
local LANES, EVENTS = KEYS[#KEYS - 1], KEYS[#KEYS]

-- Returns 1 if the lane was not known, 0 if it was, or the error of a key of a wrong type.
local function announce(lane)
  local added = redis.pcall('ZADD', LANES, redis.call('TIME')[1], lane)
  -- An event only saves time: without it workers find the lane at their next heartbeat.
  if added == 1 then redis.pcall('XADD', EVENTS, 'MAXLEN', '~', 1000, '*', 'lane', lane) end
  return added
end
