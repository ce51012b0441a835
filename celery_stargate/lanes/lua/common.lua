-- What stands before every lane script.
--
-- Keys, these nine, all of one lane and so of one slot, and behind them those of results:
--   1 log         stream: the messages that have no receipt; entry n-0 is the lane's message n;
--                 fields: its mark = frame; t = task, where the mark means one that has another
--                 name than all apps' own; l = label (what Pulsar echoes) where it is to be known
--                 without the frame; p = place in its list. The mark says what follows its receipt:
--                 q = nothing, r = a task's result, i = a task's end without one, f = anything
--   2 contexts    hash: context -> record, "1 <first number> <messages> <tombstone ms>\n<body>";
--                 first number 0: its messages, if any, are in other lanes
--   3 deadlines   sorted set: pending context -> its deadline, epoch ms
--   4 outcomes    hash: settled context -> "<token>\n<json list>"; of a list in part settled also
--                 "<context>\n<i>" -> json, and "<context>\nleft" -> how many are missing
--   5 due         sorted set: settled context -> when to do its effects if nobody has, epoch ms
--   6 lease       string: "<owner>:<fencing token>", with the lease's time to live
--   7 meta        hash: last = last number given, sent = last number that may have been sent,
--                 tried = the same under the present generation, fencing_token, generation, options,
--                 completed = "<token> <answer>" of the last call of complete
--   8 tombstones  sorted set: finished context -> until when its put is known, epoch ms
--   9 answers     string: "<token>\n<answer>" of this caller's last put, with a time to live
-- Time is the server's. A number that a caller sends is an integer.
local LOG, CONTEXTS, DEADLINES, OUTCOMES, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local LEASE, META, TOMBSTONES, ANSWERS = KEYS[6], KEYS[7], KEYS[8], KEYS[9]

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The record's head: first number, count of messages (0: none), tombstone ms; nil if unknown.
local function head(record)
  local first, count, tombstone = string.match(record, '^1 (%d+) (%d+) (%d+)\n')
  return tonumber(first), tonumber(count), tonumber(tombstone)
end

-- A full Redis refuses a script whose first write needs memory. This write needs none: what follows
-- it passes, for a full lane could not be drained otherwise.
local function pass_when_full()
  redis.call('HDEL', META, '')
end

-- Whether Redis knows less than the owner does: it came back with an older state.
local function receded(known)
  return tonumber(redis.call('HGET', META, 'sent') or '0') < tonumber(known)
end

-- The field of a list's part; a context is printable and holds no line break.
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

-- The key of the i-th result that a call stores.
local function result_key(i)
  return KEYS[9 + i]
end

-- The fields of a message in the log; the mark has the task's name behind it, where there is one.
local function entry(mark, frame)
  if #mark == 1 then return { mark, frame } end
  return { string.sub(mark, 1, 1), frame, 't', string.sub(mark, 2) }
end

-- PENDING -> DUE.
local function make_due(context, json, token, at)
  redis.call('HSET', OUTCOMES, context, token .. '\n' .. json)
  redis.call('ZADD', DUE, at, context)
  redis.call('ZREM', DEADLINES, context)
end
