-- Note messages that their owner has read from the log by itself as ones that may be sent from now on:
-- all of them, if each is still pending, or none. No frame comes through Lua, which hashes each byte.
--
-- ARGV: lease, known and generation (as in read), then number, context and place of each message, in
--       order
-- Returns {0, marked} as read does; {0} if nothing was noted, because a context's record is gone, is of
--       another message or cannot be read, or a message has its outcome; {1} if another process has
--       the lease, or {2} if Redis came back with an older state than the caller knows.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if rolled_back(ARGV[2], ARGV[3]) then return { 2 } end
local contexts, parts = {}, {}
for i = 4, #ARGV, 3 do
  contexts[#contexts + 1] = ARGV[i + 1]
  parts[#parts + 1] = part(ARGV[i + 1], ARGV[i + 2])
end
local records = redis.call('HMGET', CONTEXTS, unpack(contexts))
-- A message leaves the log in the step that gives it, or its whole context, an outcome.
local settled = redis.call('HMGET', OUTCOMES, unpack(contexts))
local settled_parts = redis.call('HMGET', OUTCOMES, unpack(parts))
local last
for i = 1, #contexts do
  last = tonumber(ARGV[1 + 3 * i])
  local first = records[i] and first_in(records[i])
  if not first or first ~= last - math.max(tonumber(ARGV[3 + 3 * i]), 0) or settled[i]
    or settled_parts[i] then return { 0 } end
end
return { 0, note_sent(last) }
