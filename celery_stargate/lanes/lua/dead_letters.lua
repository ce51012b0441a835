-- The common part of the scripts that keep dead letters, or take them; it comes after common.lua.
--
-- Keys: these four, after the eleven of common.lua, where the caller keeps dead letters. All are in
-- the lane's slot.
--   12 dead          sorted set: id -> the last failure, epoch ms. The id is the context of a message;
--                    "<context>\t<place>" in a list. All attempts at one message have the id of the
--                    first
--   13 dead_letters  hash: id -> "1 <kind> <failures> <first failure> <last failure> <number> <bytes>
--                    \n<cause>\n<outcome>" (one line before the cause). Times are epoch ms. Kinds: m =
--                    the message has no receipt; e = it has one, and its effects failed. The cause is
--                    the class of the error, a space, and its code. The outcome is JSON, or 0 or 1
--                    as in expire
--   14 dead_bodies   hash: id -> what a replay needs: "<body of the record>\n<frame>" of kind m,
--                    "<record>\n<JSON list of outcomes>" of kind e
--   15 dead_counts   hash: bytes = of all bodies; "<cause>" = how many there are; and how many there
--                    were: recorded, restored, evicted (above the bounds), outdated (past their age),
--                    retried (by Celery), replaced (the message failed again), replayed, discarded,
--                    confirmed (their receipt came late)
-- ARGV: with these keys the last argument is "<max count> <max bytes> <max age, ms>".
local DEAD, LETTERS, BODIES, COUNTS = KEYS[12], KEYS[13], KEYS[14], KEYS[15]
local GIVEN = DEAD and #ARGV - 1 or #ARGV
local MAX_COUNT, MAX_BYTES, MAX_AGE = string.match(DEAD and ARGV[#ARGV] or '', '^(%d+) (%d+) (%d+)$')

-- How many dead letters one call deletes at most, beside as many as it kept.
local MOST_PRUNED = 200
-- How many this call kept.
local kept = 0

-- Read the head of a dead letter; nil for none, or for one of another version.
local function letter_of(id)
  local kind, failures, begun, last, number, bytes, cause = string.match(
    redis.call('HGET', LETTERS, id) or '', '^1 (%a) (%d+) (%d+) (%d+) (%-?%d+) (%d+)\n([^\n]*)\n')
  if not kind then return nil end
  return { kind = kind, failures = tonumber(failures), begun = begun, last = last, number = number,
    bytes = tonumber(bytes), cause = cause }
end

-- Count something. Callers of forget_letter count what they do first: if it deleted the last field
-- of this hash, the key would lose its time to live.
local function count_letters(name, by)
  if redis.call('HINCRBY', COUNTS, name, by) <= 0 then redis.call('HDEL', COUNTS, name) end
end

-- Take a dead letter away; return its head.
local function forget_letter(id)
  local found = letter_of(id)
  if redis.call('ZREM', DEAD, id) == 0 then return nil end
  redis.call('HDEL', LETTERS, id)
  redis.call('HDEL', BODIES, id)
  if found then
    count_letters('bytes', -found.bytes)
    count_letters(found.cause, -1)
  end
  return found
end

-- Keep a dead letter, in the place of one with the same id.
local function keep_letter(id, kind, failures, begun, last, number, cause, outcome, body)
  if forget_letter(id) then redis.call('HINCRBY', COUNTS, 'replaced', 1) end
  redis.call('ZADD', DEAD, last, id)
  redis.call('HSET', LETTERS, id, string.format('1 %s %.0f %.0f %.0f %.0f %d\n', kind, failures, begun,
    last, number, #body) .. cause .. '\n' .. outcome)
  redis.call('HSET', BODIES, id, body)
  redis.call('HINCRBY', COUNTS, 'bytes', #body)
  redis.call('HINCRBY', COUNTS, cause, 1)
  kept = kept + 1
end

-- How often a message failed before, and when it failed first (now, if never).
local function history_of(id, body, now)
  local failures, begun = string.match(body, ',"replayed":%[(%d+),(%d+)%]}$')
  if not failures then
    local before = letter_of(id)
    if before then failures, begun = before.failures, before.begun end
  end
  return tonumber(failures or 0), tonumber(begun or now)
end

-- The id of the dead letter of a context: a replay has the one of the first attempt.
local function letter_id(context, body)
  if string.find(body, ',"replayed":%[%d+,%d+%]}$') then
    return (string.gsub(context, '%.replay%-%d+$', ''))
  end
  return context
end

-- The id of the dead letter of one message of a list.
local function part_id(id, place)
  return id .. '\t' .. string.format('%.0f', place)
end

-- Keep a message that has no receipt, before its entry leaves the log. An empty cause: it is not kept.
local function bury(context, record, first, place, cause, outcome, now)
  if not MAX_COUNT or first <= 0 or not cause or cause == '' then return end
  local number = first + math.max(place, 0)
  local body = string.match(record, '^[^\n]*\n(.*)$')
  local name = string.format('%.0f-0', number)
  local found = redis.call('XRANGE', LOG, name, name)[1]
  local id = letter_id(context, body)
  if place >= 0 then id = part_id(id, place) end
  local failures, begun = history_of(id, body, now)
  keep_letter(id, 'm', failures + 1, begun, now, number, cause, outcome,
    body .. '\n' .. (found and found[2][2] or ''))
  redis.call('HINCRBY', COUNTS, 'recorded', 1)
end

-- Delete dead letters above the bounds, a bounded number in each call, and let the keys expire. What was
-- there before a bound was lowered goes, too, where a call keeps nothing.
local function prune_letters(now)
  if not MAX_COUNT or kept == 0 and redis.call('ZCARD', DEAD) <= tonumber(MAX_COUNT) then return end
  local old = redis.call('ZRANGEBYSCORE', DEAD, '-inf', now - MAX_AGE, 'LIMIT', 0, MOST_PRUNED)
  -- In a full Redis this may be the first write, and must be one that needs no memory.
  for _, id in ipairs(old) do forget_letter(id) end
  if #old > 0 then redis.call('HINCRBY', COUNTS, 'outdated', #old) end
  local over = redis.call('ZCARD', DEAD) - MAX_COUNT
  local evicted = 0
  while evicted < MOST_PRUNED + kept do
    local bytes = tonumber(redis.call('HGET', COUNTS, 'bytes') or 0)
    if over <= evicted and bytes <= tonumber(MAX_BYTES) then break end
    local oldest = redis.call('ZRANGE', DEAD, 0, 0)[1]
    if not oldest then break end
    forget_letter(oldest)
    evicted = evicted + 1
  end
  if evicted > 0 then redis.call('HINCRBY', COUNTS, 'evicted', evicted) end
  if kept == 0 then return end
  for i = 12, 15 do redis.call('PEXPIRE', KEYS[i], MAX_AGE) end
end
