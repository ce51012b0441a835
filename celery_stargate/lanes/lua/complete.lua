-- Settle contexts by a receipt, store their result rows if any, and forget them: PENDING -> ABSENT.
--
-- ARGV: lease, token, count of contexts (of one message each; a receipt counts from any caller, as in
--       settle), of rows, and of waiting calls; context, ...; first number of each, as in settle;
--       value and seconds until it expires (0: never) of each row; receipt as JSON and address of
--       each call: the name of its inbox, a slash, and the call in it.
--       Then, from an owner that waits for the next message: known and generation (as in read), and
--       the number of that message, which its put is to mark
-- KEYS: after the lane's eleven those of the rows; then those of the inboxes, in the order in which the
--       addresses name them first. Of the contexts those with a row are before the last, and those
--       with a call are the last, in order. A row is stored and published, and a call is told, if its
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

local now, given, rows, calls = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local without = given - rows - calls
local contexts = { unpack(ARGV, 6, 5 + given) }
local records = redis.call('HMGET', CONTEXTS, unpack(contexts))
local outcomes = redis.call('HMGET', OUTCOMES, unpack(contexts))
local done, late, numbers, tombs, followed, seen, lowest, highest = {}, {}, {}, {}, {}, {}, nil, 0
for i, context in ipairs(contexts) do
  local first, count, tombstone
  if records[i] and not outcomes[i] and not seen[context] then
    first, count, tombstone = head(records[i])
  end
  if count == 1 and first > 0 and is_meant(first, ARGV[5 + given + i]) then
    seen[context] = true
    done[#done + 1] = context
    -- Two records have the same number only where Redis lost a part of the lane.
    if not seen[first] then numbers[#numbers + 1] = first end
    seen[first] = true
    lowest, highest = math.min(lowest or first, first), math.max(highest, first)
    if i > without then followed[i - without] = true end
    if tombstone > 0 then
      tombs[#tombs + 1] = now + tombstone
      tombs[#tombs + 1] = context
    end
  else
    late[#late + 1] = i
  end
end
-- The two arguments of a row or a call.
local function after(i)
  local at = 4 + 2 * given + 2 * i
  return ARGV[at], ARGV[at + 1]
end

local function tell(key, ...)
  local told = redis.pcall('XADD', key, '*', ...)
  if type(told) == 'table' then
    -- It is no stream: it begins anew.
    redis.call('DEL', key)
    redis.call('XADD', key, '*', ...)
  end
end

-- How many calls one entry of an inbox tells at most.
local TOLD = 100

-- Tell the calls of an inbox, and keep it for an hour.
-- heard: address and receipts of each call, one after the other.
local function tell_all(key, name, heard)
  for i = 2, #heard, 2 do
    local receipts = heard[i]
    heard[i] = '0[' .. (type(receipts) == 'table' and table.concat(receipts, ',') or receipts) .. ']'
  end
  if string.sub(name, -1) == '+' then
    for i = 1, #heard, 2 * TOLD do
      tell(key, unpack(heard, i, math.min(i + 2 * TOLD - 1, #heard)))
    end
  else
    -- The inbox of a process of an earlier version, which reads one call in an entry.
    for i = 1, #heard, 2 do tell(key, 'to', heard[i], 'outcome', heard[i + 1]) end
  end
  redis.call('EXPIRE', key, 3600)
end

pass_when_full()
for i = 1, rows do
  if followed[i] then
    local key, value, expires = result_key(i), after(i)
    if expires == '0' then
      redis.call('SET', key, value)
    else
      redis.call('SET', key, value, 'EX', expires)
    end
    redis.call('PUBLISH', key, value)
  end
end
local names, heard_in, place_of = {}, {}, {}
for i = rows + 1, rows + calls do
  local receipt, address = after(i)
  local name = string.match(address, '^[^/]*')
  local heard = heard_in[name]
  if not heard then
    heard = {}
    names[#names + 1], heard_in[name] = name, heard
  end
  local place = place_of[address]
  if followed[i] and not place then
    heard[#heard + 1] = address
    heard[#heard + 1] = receipt
    place_of[address] = #heard
  elseif followed[i] and type(heard[place]) == 'string' then
    heard[place] = { heard[place], receipt }
  elseif followed[i] then
    table.insert(heard[place], receipt)
  end
end
for i, name in ipairs(names) do
  if #heard_in[name] > 0 then tell_all(result_key(rows + i), name, heard_in[name]) end
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
local known, under, expected = unpack(ARGV, 6 + 2 * given + 2 * (rows + calls))
if expected and fenced == 0 and not is_older(known, under, sent, generation, marked) then
  noted[3], noted[4] = 'expected', ARGV[1] .. ' ' .. expected
end
redis.call('HSET', META, unpack(noted))
return reply(places)
