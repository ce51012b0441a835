-- Settle contexts by a receipt, store their result rows if any, and forget them: PENDING -> ABSENT.
--
-- ARGV: lease, token, count of contexts, context, ... (of one message each; a receipt counts from
--       any caller, as in settle), first number of each, as in settle; then value, seconds until it
--       expires (0: never) of each row
--       A row may also be a receipt for a waiting call: the receipt as JSON, and the call's address,
--       which has a slash
--       Then, from an owner that waits for the next message: known and generation (as in read), and
--       the number of that message, which its put is to mark
-- KEYS: after the lane's eleven those of the rows; the inbox of a waiting call. The rows belong to
--       the last of the contexts, in order. A row is stored and published, and a call is told, if its
--       context is settled by this call, else not.
-- Returns {fenced, late, place, ...}: 1 if another process has the lease, and how many contexts were
--       settled or finished before, or never were there, with the place of each, from 1.
-- A repeat with the same token gets the same reply.
local fenced = redis.call('GET', LEASE) == ARGV[1] and 0 or 1

local function reply(places)
  local found = { fenced, 0 }
  for place in string.gmatch(places, '%d+') do
    found[2] = found[2] + 1
    found[#found + 1] = tonumber(place)
  end
  return found
end

local completed, sent, generation, marked = unpack(redis.call('HMGET', META, 'completed',
  unpack(NOTED)))
if completed then
  local by, places = string.match(completed, '^(.*) ([%d,]*)$')
  if by == ARGV[2] then return reply(places) end
end

local now, given = now_ms(), tonumber(ARGV[3])
local without = given - (#KEYS - 11)
local contexts = { unpack(ARGV, 4, 3 + given) }
local records = redis.call('HMGET', CONTEXTS, unpack(contexts))
local outcomes = redis.call('HMGET', OUTCOMES, unpack(contexts))
local done, late, numbers, tombs, results, seen, lowest, highest = {}, {}, {}, {}, {}, {}, nil, 0
for i, context in ipairs(contexts) do
  local first, count, tombstone
  if records[i] and not outcomes[i] and not seen[context] then
    first, count, tombstone = head(records[i])
  end
  if count == 1 and first > 0 and is_meant(first, ARGV[3 + given + i]) then
    seen[context] = true
    done[#done + 1] = context
    -- Two records have the same number only where Redis lost a part of the lane.
    if not seen[first] then numbers[#numbers + 1] = first end
    seen[first] = true
    lowest, highest = math.min(lowest or first, first), math.max(highest, first)
    if i > without then results[#results + 1] = i - without end
    if tombstone > 0 then
      tombs[#tombs + 1] = now + tombstone
      tombs[#tombs + 1] = context
    end
  else
    late[#late + 1] = i
  end
end
-- Put outcomes into the inbox of a waiting process, and keep it for an hour.
local kept = {}
local function tell(key, address, outcomes)
  local told = redis.pcall('XADD', key, '*', 'to', address, 'outcome', outcomes)
  if type(told) == 'table' then
    -- It is no stream: it begins anew.
    redis.call('DEL', key)
    redis.call('XADD', key, '*', 'to', address, 'outcome', outcomes)
  end
  if not kept[key] then
    kept[key] = true
    redis.call('EXPIRE', key, 3600)
  end
end

pass_when_full()
-- One entry of an inbox holds all receipts that one call gets.
local told, addresses = {}, {}
for _, i in ipairs(results) do
  local key, value, expires = result_key(i), ARGV[2 * given + 2 + 2 * i], ARGV[2 * given + 3 + 2 * i]
  if string.find(expires, '/', 1, true) then
    if not told[expires] then
      told[expires] = { key = key }
      addresses[#addresses + 1] = expires
    end
    local values = told[expires]
    values[#values + 1] = value
  else
    if expires == '0' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'EX', expires)
    end
    redis.call('PUBLISH', key, value)
  end
end
for _, address in ipairs(addresses) do
  local values = told[address]
  tell(values.key, address, '0[' .. (values[2] and table.concat(values, ',') or values[1]) .. ']')
end
if #done > 0 then
  redis.call('HDEL', CONTEXTS, unpack(done))
  redis.call('ZREM', DEADLINES, unpack(done))
  -- Mostly they are the beginning of the log, which XTRIM removes at once; XDEL searches for each. The
  -- look for a message before them finds none then: it would be read as a whole, and may be large.
  if highest - lowest + 1 == #numbers
    and #redis.call('XRANGE', LOG, '-', string.format('(%.0f-0', lowest), 'COUNT', 1) == 0 then
    redis.call('XTRIM', LOG, 'MINID', string.format('%.0f-1', highest))
  else
    -- Redis takes the id n for n-0.
    redis.call('XDEL', LOG, unpack(numbers))
  end
end
if #tombs > 0 then redis.call('ZADD', TOMBSTONES, unpack(tombs)) end
prune_tombstones(now)
local places = table.concat(late, ',')
local noted = { 'completed', ARGV[2] .. ' ' .. places }
local known, under, expected = unpack(ARGV, 4 + 2 * given + 2 * (#KEYS - 11))
if expected and fenced == 0 and not is_older(known, under, sent, generation, marked) then
  noted[3], noted[4] = 'expected', ARGV[1] .. ' ' .. expected
end
redis.call('HSET', META, unpack(noted))
return reply(places)
