-- Take a lane out of the list, unless it was announced recently.
--
-- KEYS: lanes (as in announce). ARGV: lane, idle s. Returns 1 if it is out of the list, else 0.
local announced = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
local now = tonumber(redis.call('TIME')[1])
-- A time a day ahead is no announcement's.
if announced > now - tonumber(ARGV[2]) and announced < now + 86400 then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
