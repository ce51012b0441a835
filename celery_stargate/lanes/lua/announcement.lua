-- The list of lanes, by which the workers know them; it is put before the scripts that use it.
--
-- Keys: these two of the registry, the last ones that a script gets.
--   lanes         sorted set: lane -> when it was last announced, epoch s
--   events        stream: what the workers watch
local LANES, EVENTS = KEYS[#KEYS - 1], KEYS[#KEYS]

-- Make a lane known to the workers. Returns 1 if it was not known, 0 if it was, or the error of a list
-- that is of a wrong type.
local function announce(lane)
  local added = redis.pcall('ZADD', LANES, redis.call('TIME')[1], lane)
  -- An event only saves time: without it workers find the lane at their next heartbeat.
  if added == 1 then redis.pcall('XADD', EVENTS, 'MAXLEN', '~', 1000, '*', 'lane', lane) end
  return added
end

-- Announce the lane of a put that got its first number here: Redis may have lost the lane with its
-- announcement, and the caller may be gone. A repeat does so again, because the first answer was lost.
-- Returns the put's answer; a third value, "unlisted", tells that the list of lanes is of a wrong type.
-- reply: the put's answer.
-- meta: the key of the lane's. options: what the put leaves there for workers that do not know the
-- topic, as JSON; "": nothing. lane: "" for the lane of contexts without messages, which always exists.
local function begin_lane(reply, meta, options, lane)
  -- The number is below 0 in a lane that has the context, and not its messages.
  if reply[1] ~= 'new' or math.abs(reply[2]) ~= 1 or lane == '' then return reply end
  if options ~= '' then redis.call('HSET', meta, 'options', options) end
  if type(announce(lane)) == 'table' then reply[3] = 'unlisted' end
  return reply
end

-- Whether a lane was announced in the last <seconds>; true if the list of lanes has a wrong type.
local function is_announced(lane, seconds, now)
  local at = redis.pcall('ZSCORE', LANES, lane)
  if type(at) == 'table' then return true end
  at = tonumber(at or '0')
  -- A time a day ahead is no announcement's.
  return at > now - seconds and at < now + 86400
end
