-- Make a lane known to the workers, and tell them if it is new. The options are left first: a worker may
-- take the lane as soon as it is listed, and may not know its topic.
--
-- KEYS: the key meta of the lane, if there are options; then those of the list.
-- ARGV: lane; producer options as JSON, if there are some. Returns 1 if it was not known, else 0.
if ARGV[2] then redis.call('HSET', KEYS[1], 'options', ARGV[2]) end
return announce(ARGV[1])
