-- Reserve room in the lane for the messages that a call is about to put, or give it back.
--
-- ARGV: name of the reservation, messages (0: give back what is left), max backlog, ms for which it
--       holds
-- Returns {1, messages that the lane holds, with all reservations} if there is room, else {0, ...}.
--       A repeat changes nothing.
local name, count, now = ARGV[1], tonumber(ARGV[2]), now_ms()
pass_when_full()
redis.call('HDEL', RESERVED, name)
local held = backlog(now)
if count == 0 then return { 1, held } end
if held + count > tonumber(ARGV[3]) then return { 0, held } end
redis.call('HSET', RESERVED, name, string.format('%d %.0f', count, now + tonumber(ARGV[4])))
return { 1, held }
