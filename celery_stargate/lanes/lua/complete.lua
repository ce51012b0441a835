-- Settle contexts by a receipt, store their result rows if any, and forget them: PENDING -> ABSENT.
--
-- ARGV: lease, token, count of contexts, context, ... (of one message each; a receipt counts from
--       any caller, as in settle); then value, seconds until it expires (0: never) of each row
-- KEYS: after the lane's ten those of the rows. The rows belong to the last of the contexts, in
--       order. A row is stored and published if its context is settled by this call, else not.
-- Returns {fenced, late}: 1 if another process has the lease, and how many contexts were settled or
--       finished before, or never were there.
-- A repeat with the same token gets the same reply.
local fenced = redis.call('GET', LEASE) == ARGV[1] and 0 or 1
local answered = redis.call('HGET', META, 'completed')
if answered then
  local by, late = string.match(answered, '^(.*) (%d+)$')
  if by == ARGV[2] then return { fenced, tonumber(late) } end
end

local given = tonumber(ARGV[3])
local without = given - (#KEYS - 10)
local contexts = { unpack(ARGV, 4, 3 + given) }
local records = redis.call('HMGET', CONTEXTS, unpack(contexts))
local outcomes = redis.call('HMGET', OUTCOMES, unpack(contexts))
local done, numbers, buried, results, seen, lowest, highest = {}, {}, {}, {}, {}, nil, 0
for i, context in ipairs(contexts) do
  local first, count, tombstone
  if records[i] and not outcomes[i] and not seen[context] then
    first, count, tombstone = head(records[i])
  end
  seen[context] = true
  if count == 1 then
    done[#done + 1] = context
    numbers[#numbers + 1] = string.format('%.0f-0', first)
    lowest, highest = math.min(lowest or first, first), math.max(highest, first)
    if i > without then results[#results + 1] = i - without end
    if tombstone > 0 then
      buried[#buried + 1] = now_ms() + tombstone
      buried[#buried + 1] = context
    end
  end
end
pass_when_full()
for _, i in ipairs(results) do
  local key, value, expires = result_key(i), ARGV[given + 2 + 2 * i], ARGV[given + 3 + 2 * i]
  if expires == '0' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'EX', expires)
  end
  redis.call('PUBLISH', key, value)
end
if #done > 0 then
  redis.call('HDEL', CONTEXTS, unpack(done))
  redis.call('ZREM', DEADLINES, unpack(done))
  -- Mostly they are the beginning of the log, which XTRIM removes at once; XDEL searches for each.
  local begin = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
  if begin and begin[1] == string.format('%.0f-0', lowest) and highest - lowest + 1 == #done then
    redis.call('XTRIM', LOG, 'MINID', string.format('%.0f-0', highest + 1))
  else
    redis.call('XDEL', LOG, unpack(numbers))
  end
end
if #buried > 0 then redis.call('ZADD', TOMBSTONES, unpack(buried)) end
redis.call('HSET', META, 'completed', ARGV[2] .. ' ' .. #contexts - #done)
return { fenced, #contexts - #done }
