-- The common part of all lane scripts; it is put before each of them.
--
-- Keys: these ten, all of one lane and so in one slot of a cluster. The keys of result rows, which
-- only complete.lua gets, come after them.
--   1 log         stream: the messages without a receipt; entry n-0 is the lane's message n.
--                 Fields: the code of its follow-up (the name) = its frame (the value); then, where
--                 they are needed, t = the task whose result is stored, if it is not the produce
--                 task of every app; l = the label that Pulsar echoes, if the frame does not tell
--                 it; p = the message's place in its list.
--                 Codes: q = nothing follows the receipt; r = a task's result; i = a task ends
--                 without a result; f = anything, which only the record tells (FollowUp)
--   2 contexts    hash: context -> record, "1 <first number> <messages> <tombstone ms>\n<body>";
--                 first number 0: its messages, if it has any, are in other lanes
--   3 deadlines   sorted set: pending context -> its deadline, epoch ms
--   4 outcomes    hash: settled context -> "<token>\n<JSON list>"; for a list of which some
--                 messages are settled "<context>\n<i>" -> JSON, and "<context>\nleft" -> how many
--                 are not
--   5 due         sorted set: settled context -> when another process does its effects, epoch ms
--   6 lease       string: "<owner>:<fencing token>"; its time to live is the lease's
--   7 meta        hash: last = last number given; sent = last number that may have been sent;
--                 tried = the same under the present generation; fencing_token; generation;
--                 options = producer options left by a caller; completed = "<token> <reply>" of the
--                 last call of complete
--   8 tombstones  sorted set: finished context -> until when a put of it does nothing, epoch ms
--   9 quarantine  stream: entries that were set aside because they cannot be sent, at most about 1000,
--                 for a week after the last one; number, reason and the fields that the entry had in the log
--   10 answers    string: "<token>\n<reply>" of this caller's last put, with a time to live
-- Times are the server's. All numbers that a caller sends are integers.
local LOG, CONTEXTS, DEADLINES, OUTCOMES, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LEASE, META, TOMBSTONES, QUARANTINE = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local ANSWERS = KEYS[10]

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The head of a record: first number, count of messages (0: none), tombstone ms. All are nil for a
-- record of another version.
local function head(record)
  local first, count, tombstone = string.match(record, '^1 (%d+) (%d+) (%d+)\n')
  return tonumber(first), tonumber(count), tonumber(tombstone)
end

-- A full Redis refuses a script if its first write needs memory. This write needs none, so all
-- later writes are accepted. Without it a lane in a full Redis could not be drained.
local function pass_when_full()
  redis.call('HDEL', META, '')
end

-- Whether Redis came back with an older state: it knows of fewer sent messages than the owner does.
local function rolled_back(known)
  return tonumber(redis.call('HGET', META, 'sent') or '0') < tonumber(known)
end

-- The field in outcomes for one message of a list; a context has no line break.
local function part(context, i)
  return context .. '\n' .. i
end

local function forget_parts(context, count)
  if count > 1 then
    redis.call('HDEL', OUTCOMES, part(context, 'left'))
    for i = 0, count - 1 do redis.call('HDEL', OUTCOMES, part(context, i)) end
  end
end

local function forget_entries(first, count)
  if first == 0 then return end
  for n = first, first + count - 1 do redis.call('XDEL', LOG, string.format('%.0f-0', n)) end
end

-- The key of the i-th result row that a call stores.
local function result_key(i)
  return KEYS[10 + i]
end

-- The first fields of a message in the log. The code may have a task's name after it.
local function entry(code, frame)
  if #code == 1 then return { code, frame } end
  return { string.sub(code, 1, 1), frame, 't', string.sub(code, 2) }
end

-- PENDING -> DUE.
local function make_due(context, json, token, at)
  redis.call('HSET', OUTCOMES, context, token .. '\n' .. json)
  redis.call('ZADD', DUE, at, context)
  redis.call('ZREM', DEADLINES, context)
end

-- What Pulsar echoes of a frame: its field context, which is the last one. nil if there is none.
local function label_in(frame)
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

-- Read an entry of the log.
-- Returns number, label ("": it is in the frame), frame, place (-1: in no list), code, and why it may
-- not be sent (nil: it may). The reasons are those of Unreadable in wire.py.
local function message(entry)
  local number, part, fields = string.match(entry[1], '^(%d+)-(%d+)$')
  fields, number = entry[2], tonumber(number)
  local code, frame, label, place = fields[1], fields[2], '', -1
  for i = 3, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    if name == 'l' then
      label = value
    elseif name == 't' then
      code = code .. value
    elseif name == 'p' then
      place = tonumber(value)
    end
  end
  local context = place and place >= -1 and place % 1 == 0 and context_of(frame, label, place)
  if part ~= '0' or not context then return number, '', '', -1, '', 'damaged' end
  local record = redis.call('HGET', CONTEXTS, context)
  if not record then return number, label, frame, place, code, 'orphan' end
  local first = head(record)
  if first == number - math.max(place, 0) then return number, label, frame, place, code end
  if first then return number, label, frame, place, code, 'orphan' end
  local version = tonumber(string.match(record, '^(%d+) ') or '0')
  if version <= 1 then return number, label, frame, place, code, 'damaged' end
  local deadline = redis.call('ZSCORE', DEADLINES, context)
  local waits = deadline and tonumber(deadline) > now_ms()
  return number, label, frame, place, code, waits and 'newer' or 'expired'
end
