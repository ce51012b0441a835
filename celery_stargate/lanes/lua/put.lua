-- Record a context with its messages: ABSENT -> PENDING. Idempotent by context, and by token.
--
-- ARGV: token, context, body, deadline after ms, max backlog (0: no limit), tombstone ms,
--       answer ms (how long a repeat of this call gets the same reply), code of the follow-up (see
--       common.lua; a task's name may come after it), then label and frame of each message.
--       An empty label: it is in the frame. An empty frame: the message is in another lane; then
--       all messages of the call are.
-- Returns {word, number}: "new" and the first number (0: none here); "known" and 0: the context is
--       there, or was until recently; "full" and the length of the backlog: nothing was recorded.
local token, context, body = ARGV[1], ARGV[2], ARGV[3]
local timeout, max_backlog = tonumber(ARGV[4]), tonumber(ARGV[5])
local tombstone, remember = tonumber(ARGV[6]), tonumber(ARGV[7])
local code, count = ARGV[8], (#ARGV - 8) / 2

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

-- The first write needs memory: a full Redis refuses the whole call, and nothing is half recorded.
-- A list whose messages are in other lanes gets no numbers here, because they would be gaps.
local first = 0
if count > 0 and ARGV[10] ~= '' then first = redis.call('HINCRBY', META, 'last', count) - count + 1 end
redis.call('HSET', CONTEXTS, context,
  string.format('1 %.0f %d %.0f\n', first, count, tombstone) .. body)
redis.call('ZADD', DEADLINES, now + timeout, context)
for i = 0, first > 0 and count - 1 or -1 do
  local fields = entry(code, ARGV[10 + 2 * i])
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
