-- Take a lane out of the list, unless it was announced recently.
--
-- KEYS: lanes (as in announce). ARGV: lane, idle s. Returns 1 if it is out of the list, else 0.
local announced = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not announced then return 1 end
if tonumber(announced) > redis.call('TIME')[1] - tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
