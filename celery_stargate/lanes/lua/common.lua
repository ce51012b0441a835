-- The common part of all lane scripts; it is put before each of them.
--
-- Keys: these eleven, all of one lane and so in one slot of a cluster. The keys of result rows, which
-- only complete.lua gets, come after them; or the keys of dead letters, or of the registry.
--   1 log         stream: the messages without a receipt; entry n-0 is the lane's message n.
--                 Fields: the code of its follow-up (the name) = its frame (the value), as
--                 model/frame.py describes it; then, where they are needed, t = the address of the waiting
--                 call, or the task whose result is stored, if it is not the produce task of every
--                 app; l = the label that Pulsar echoes, if the frame does not tell
--                 it; p = the message's place in its list; m = "<lease> <token of the put> <ms>", if
--                 the put marked it: it was noted as sent for the owner that had this lease.
--                 Codes: q = nothing follows the receipt; r = a task's result; i = a task ends
--                 without a result; w = a call is told, and that is all; f = anything, which only the record tells (FollowUp)
--   2 contexts    hash: context -> record, "<version> <first number> <messages> <tombstone ms>\n<body>".
--                 Version 2: a frame of its messages has the payload as bytes; else 1. The first
--                 number tells a context from another of the same name. Below 0: its messages, if it
--                 has any, are in other lanes
--   3 deadlines   sorted set: pending context -> its deadline, epoch ms
--   4 outcomes    hash: settled context -> "<token>\n<JSON list>"; for a list of which some
--                 messages are settled "<context>\n<i>" -> JSON, and "<context>\nleft" -> how many
--                 are not
--   5 due         sorted set: settled context -> when another process does its effects, epoch ms
--   6 lease       string: "<owner>:<fencing token>"; its time to live is the lease's
--   7 meta        hash: last = last number given; sent = last number that may have been sent;
--                 tried = the same under the present generation; fencing_token; generation;
--                 begun_by = the fencing token of the hold that began it; expected = "<lease>
--                 <number>" of the next message, if its owner waits for it; marked = field m of message
--                 "sent", if its put marked it; apart = how many contexts
--                 without messages in this lane there were; set_aside = how many entries were;
--                 options = producer options left by a caller; completed = "<token> <places of those
--                 that were late>" of the last call of complete
--   8 tombstones  sorted set: finished context -> until when a put of it does nothing, epoch ms; of
--                 more than MAX_TOMBSTONES those that end first are forgotten
--   9 quarantine  stream: entries that were set aside because they cannot be sent, at most about 1000,
--                 for a week after the last one; number, reason and the fields that the entry had in the log
--   10 reserved   hash: token of a call -> "<messages that it may still put> <until, epoch ms>"
--   11 answers    string: "<token>\n<reply>" of this caller's last put, with a time to live
-- Times are the server's. All numbers that a caller sends are integers.
local LOG, CONTEXTS, DEADLINES, OUTCOMES, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LEASE, META, TOMBSTONES, QUARANTINE = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local RESERVED, ANSWERS = KEYS[10], KEYS[11]

-- How many tombstones a lane keeps at most, and how many one call forgets at most.
local MAX_TOMBSTONES, FORGOTTEN = 100000, 400

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The head of a record: first number (below 0: no messages here), count of messages (0: none),
-- tombstone ms. All are nil for a record of another version.
local function head(record)
  local first, count, tombstone = string.match(record, '^[12] (%-?%d+) (%d+) (%d+)\n')
  return tonumber(first), tonumber(count), tonumber(tombstone)
end

-- The first number in the head of a record; nil for a record of another version.
local function first_in(record)
  return tonumber((string.match(record, '^[12] (%-?%d+) %d+ %d+\n')))
end

-- The version of the record of messages with a frame: an older process must not send bytes.
local function version_of(frame)
  return string.match(frame, '^%d') and 2 or 1
end

-- A full Redis refuses a script if its first write needs memory. This write needs none, so all
-- later writes are accepted. Without it a lane in a full Redis could not be drained.
local function pass_when_full()
  redis.call('HDEL', META, '')
end

-- The fields of meta by which an owner finds that Redis came back with an older state.
local NOTED = { 'sent', 'generation', 'marked' }

-- Whether the values of these fields are older than what the owner knows: fewer messages were sent,
-- another put marked that number, or there is not the generation that the owner began.
-- known: the highest number that the owner knows to be noted as sent; after a space comes field m of
-- that message, or nothing if its put did not mark it.
-- under: the generation that the owner works under ("": it does not say).
local function is_older(known, under, sent, generation, marked)
  local number, by = string.match(known, '^(%d+) ?(.*)$')
  sent, number = tonumber(sent or '0'), tonumber(number)
  return sent < number or (sent == number and by ~= (marked or ''))
    or (under ~= '' and under ~= generation)
end

local function rolled_back(known, under)
  return is_older(known, under, unpack(redis.call('HMGET', META, unpack(NOTED))))
end

-- Mark a message, if the lane's owner waits for it: note it as sent, as a read would, so that the
-- owner may send it as soon as it is in the log. Returns field m of its entry, or nil. A repeat of the
-- put, of which Redis has forgotten the first, has another time. A later version of put must not mark
-- what an owner of this version cannot read: the owner sends it without a look at the record.
local function mark(number, token, now)
  local lease, expected = string.match(redis.call('HGET', META, 'expected') or '', '^(.*) (%d+)$')
  if tonumber(expected) ~= number or redis.call('GET', LEASE) ~= lease then return nil end
  local sent = string.format('%.0f', number)
  local marked = string.format('%s %s %.0f', lease, token, now)
  redis.call('HSET', META, 'sent', sent, 'tried', sent, 'marked', marked)
  return marked
end

-- The answer to a repeated call of put or put_many; nil for a call that is new. A caller makes one
-- call after another, so a token before its last one is a copy that was held up on its way: what it
-- recorded may be finished, and nothing is done for it.
local function answered(token)
  local by, what, number = string.match(redis.call('GET', ANSWERS) or '', '^([^\n]*)\n(%a+) (%-?%d+)$')
  if not by then return nil end
  if by == token then return { what, tonumber(number) } end
  local last, call = string.match(by, ':(%d+)$'), string.match(token, ':(%d+)$')
  if last and call and string.sub(by, 1, -#last - 1) == string.sub(token, 1, -#call - 1)
    and tonumber(call) < tonumber(last) then return { 'known', 0 } end
  return nil
end

-- Remember and return the answer to a call.
local function answer(token, what, number, ms)
  redis.call('SET', ANSWERS, token .. '\n' .. what .. ' ' .. string.format('%.0f', number), 'PX', ms)
  return { what, number }
end

-- For how long a caller's last settle or revoke is known, in ms. A put brings a time of its own.
local REMEMBERED = 900000

-- Whether a call that means whichever context has a name is a copy of one that came before: the
-- context may be another one by now. What is no copy is remembered.
local function is_copy(token, number)
  if number ~= '' then return false end
  if answered(token) then return true end
  answer(token, 'known', 0, REMEMBERED)
  return false
end

-- Whether a context was finished a short time ago.
local function buried(context, now)
  local until_ms = redis.call('ZSCORE', TOMBSTONES, context)
  return until_ms and tonumber(until_ms) > now
end

-- Forget tombstones that have ended, and those above the bound; a bounded number in each call.
local function prune_tombstones(now)
  if redis.call('ZCARD', TOMBSTONES) == 0 then return end
  local ended = redis.call('ZRANGEBYSCORE', TOMBSTONES, '-inf', now, 'LIMIT', 0, FORGOTTEN)
  if #ended > 0 then redis.call('ZREM', TOMBSTONES, unpack(ended)) end
  local over = redis.call('ZCARD', TOMBSTONES) - MAX_TOMBSTONES
  if over > 0 then
    redis.call('ZREMRANGEBYRANK', TOMBSTONES, 0, math.min(over, FORGOTTEN) - 1)
  end
end

-- How many messages the lane holds, and calls have reserved. A reservation that has ended is not
-- counted, and is deleted.
local function backlog(now)
  local count, reserved = redis.call('XLEN', LOG), redis.call('HGETALL', RESERVED)
  for i = 1, #reserved, 2 do
    local left, until_ms = string.match(reserved[i + 1], '^(%d+) (%d+)$')
    if left and tonumber(until_ms) > now then
      count = count + tonumber(left)
    else
      redis.call('HDEL', RESERVED, reserved[i])
    end
  end
  return count
end

-- Take messages that are put now out of their call's reservation, if it still has one.
local function use_reservation(name, count)
  local left, until_ms = string.match(redis.call('HGET', RESERVED, name) or '', '^(%d+) (%d+)$')
  if not left then return end
  if tonumber(left) <= count then
    redis.call('HDEL', RESERVED, name)
  else
    redis.call('HSET', RESERVED, name, string.format('%.0f ', tonumber(left) - count) .. until_ms)
  end
end

-- Give numbers to messages; returns the first. If meta was lost, they continue after the highest
-- number that the log ever had, because a stream accepts only higher ones.
local function take_numbers(count)
  local first = redis.call('HINCRBY', META, 'last', count) - count + 1
  if first > 1 or redis.call('EXISTS', LOG) == 0 then return first end
  local about = redis.call('XINFO', 'STREAM', LOG)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then first = tonumber(string.match(about[i + 1], '^%d+')) + 1 end
  end
  redis.call('HSET', META, 'last', string.format('%.0f', first + count - 1))
  return first
end

-- Whether a record is the one that a caller means by its first number ("": whichever is there).
local function is_meant(first, number)
  return number == '' or tonumber(number) == first
end

-- The field in outcomes for one message of a list; a context has no line break.
local function part(context, i)
  return context .. '\n' .. i
end

-- How many fields one command gets at most, because Lua's stack is bounded.
local FIELDS = 1000

-- Call do_some() with as many of count names at a time as one command takes; name(i) is the i-th,
-- from 0.
local function by_many(count, name, do_some)
  for from = 0, count - 1, FIELDS do
    local names = {}
    for i = from, math.min(from + FIELDS, count) - 1 do names[#names + 1] = name(i) end
    do_some(names)
  end
end

-- The outcomes of a list's messages; false for one that has none yet.
local function parts_of(context, count)
  local found = {}
  by_many(count, function(i) return part(context, i) end, function(names)
    for _, each in ipairs(redis.call('HMGET', OUTCOMES, unpack(names))) do found[#found + 1] = each end
  end)
  return found
end

local function forget_parts(context, count)
  if count <= 1 then return end
  redis.call('HDEL', OUTCOMES, part(context, 'left'))
  by_many(count, function(i) return part(context, i) end, function(names)
    redis.call('HDEL', OUTCOMES, unpack(names))
  end)
end

local function forget_entries(first, count)
  if first <= 0 then return end
  by_many(count, function(i) return string.format('%.0f-0', first + i) end, function(ids)
    redis.call('XDEL', LOG, unpack(ids))
  end)
end

-- The key of the i-th result row that a call stores.
local function result_key(i)
  return KEYS[11 + i]
end

-- The first fields of a message in the log. The code may have a name after it.
-- marked: field m; nil or false for a message that its put did not mark.
local function entry(code, frame, marked)
  local fields = { string.sub(code, 1, 1), frame }
  if #code > 1 then
    fields[3], fields[4] = 't', string.sub(code, 2)
  end
  if marked then
    fields[#fields + 1] = 'm'
    fields[#fields + 1] = marked
  end
  return fields
end

-- PENDING -> DUE.
local function make_due(context, json, token, at)
  redis.call('HSET', OUTCOMES, context, token .. '\n' .. json)
  redis.call('ZADD', DUE, at, context)
  redis.call('ZREM', DEADLINES, context)
end

-- DUE -> ABSENT. Returns the context's record if it was due, and is the one that is meant.
local function finish(context, number, now)
  local record = redis.call('HGET', CONTEXTS, context)
  local first, _, tombstone
  if record then first, _, tombstone = head(record) end
  if not first or not is_meant(first, number) or redis.call('ZREM', DUE, context) == 0 then
    return nil
  end
  if tombstone > 0 then redis.call('ZADD', TOMBSTONES, now + tombstone, context) end
  redis.call('HDEL', CONTEXTS, context)
  redis.call('HDEL', OUTCOMES, context)
  return record
end

-- What Pulsar echoes of a frame: its field context, which is the last one. nil if there is none.
local function label_in(frame)
  -- Most labels are ids of 36 characters. To look for one of these first costs a third.
  local near = string.match(frame, '"context":"([^"\\]*)"}$', -50)
  if near then return near end
  local text = string.match(string.sub(frame, -1024), '.*"context":"(.*)"}$')
  if text and not string.find(text, '\\', 1, true) then return text end
  local fine, fields = pcall(cjson.decode, text and '{"context":"' .. text .. '"}' or frame)
  local label = fine and type(fields) == 'table' and fields.context
  return type(label) == 'string' and label or nil
end

-- The context of a message in the log; nil if it cannot be read.
local function context_of(frame, label, place)
  if label == '' then label = label_in(frame) end
  if place < 0 or not label then return label end
  local suffix = '\t' .. string.format('%.0f', place)
  if string.sub(label, -#suffix) == suffix then return string.sub(label, 1, -#suffix - 1) end
  return label
end

-- Read an entry of the log: a table with number, label ("": it is in the frame), frame, place (-1: in
-- no list), code and context. The context is nil if the entry is damaged.
local function parse(entry)
  local number, part = string.match(entry[1], '^(%d+)-(%d+)$')
  local fields = entry[2]
  local found = { number = tonumber(number), code = fields[1], frame = fields[2], label = '', place = -1 }
  for i = 3, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'l' then
      found.label = value
    elseif name == 't' then
      found.code = found.code .. value
    elseif name == 'p' then
      found.place = string.match(value, '^%d+$') and tonumber(value)
    end
  end
  if part == '0' and found.place then
    found.context = context_of(found.frame, found.label, found.place)
  end
  return found
end

-- Why a parsed entry may not be sent, by the record of its context; nil if it may. The reasons are
-- those of Unreadable in wire.py.
local function unreadable(found, record)
  if not found.context then return 'damaged' end
  if not record then return 'orphan' end
  local first = first_in(record)
  if first == found.number - math.max(found.place, 0) then return nil end
  if first then return 'orphan' end
  if tonumber(string.match(record, '^(%d+) ') or '0') <= 2 then return 'damaged' end
  local deadline = redis.call('ZSCORE', DEADLINES, found.context)
  return deadline and tonumber(deadline) > now_ms() and 'newer' or 'expired'
end

-- Parse entries of the log, and return with them the records of their contexts, in the same order.
local function parse_all(entries)
  local parsed, contexts = {}, {}
  for i, entry in ipairs(entries) do
    parsed[i] = parse(entry)
    contexts[i] = parsed[i].context or ''
  end
  return parsed, #parsed > 0 and redis.call('HMGET', CONTEXTS, unpack(contexts)) or {}
end
