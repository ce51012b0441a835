-- Record a context with its messages: ABSENT -> PENDING. Idempotent by context, and by token.
--
-- ARGV: token, context, body, deadline after ms, max backlog (0: none), tombstone ms,
--       answer ms (how long a repeat of this call gets its answer), mark (see common.lua, with
--       the task's name behind it), then label, frame, ...
--       an empty label is not kept, and stands in the frame;
--       an empty frame stands for a message in another lane, and then all of them are
-- Returns {what, number}: what = "new" (first number, or 0), "known" (the context is there
--       already), or "full" (length of the backlog; nothing was recorded).
local token, context, body = ARGV[1], ARGV[2], ARGV[3]
local timeout, max_backlog = tonumber(ARGV[4]), tonumber(ARGV[5])
local tombstone, remember = tonumber(ARGV[6]), tonumber(ARGV[7])
local mark, count = ARGV[8], (#ARGV - 8) / 2

local answered = redis.call('GET', ANSWERS)
if answered then
  local by, what, number = string.match(answered, '^([^\n]*)\n(%a+) (%d+)$')
  if by == token then return { what, tonumber(number) } end
end

local now = now_ms()
if redis.call('HEXISTS', CONTEXTS, context) == 1 then return { 'known', 0 } end
local until_ms = redis.call('ZSCORE', TOMBSTONES, context)
if until_ms and tonumber(until_ms) > now then return { 'known', 0 } end

if max_backlog > 0 then
  local backlog = redis.call('XLEN', LOG)
  if backlog + count > max_backlog then return { 'full', backlog } end
end

-- The first write needs memory: a full Redis refuses it, and nothing is half recorded.
-- A list whose messages are all in other lanes has no numbers here: they would be gaps.
local first = 0
if count > 0 and ARGV[10] ~= '' then first = redis.call('HINCRBY', META, 'last', count) - count + 1 end
redis.call('HSET', CONTEXTS, context,
  string.format('1 %.0f %d %.0f\n', first, count, tombstone) .. body)
redis.call('ZADD', DEADLINES, now + timeout, context)
for i = 0, first > 0 and count - 1 or -1 do
  local fields = entry(mark, ARGV[10 + 2 * i])
  if ARGV[9 + 2 * i] ~= '' then
    fields[#fields + 1] = 'l'
    fields[#fields + 1] = ARGV[9 + 2 * i]
  end
  if count > 1 then
    fields[#fields + 1] = 'p'
    fields[#fields + 1] = i
  end
  redis.call('XADD', LOG, string.format('%.0f-0', first + i), unpack(fields))
end
redis.call('SET', ANSWERS, token .. '\nnew ' .. string.format('%.0f', first), 'PX', remember)
return { 'new', first }
