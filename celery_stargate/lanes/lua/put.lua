-- Record a context with its messages: ABSENT -> PENDING. Idempotent by context, and by token.
-- Marks a single message that the lane's owner waits for, and announces a lane that begins.
--
-- ARGV: token, context, body, deadline after ms, max backlog (0: no limit; or the name of a
--       reservation that the call has), tombstone ms, answer ms (how long a repeat of this call
--       gets the same reply), code of the follow-up (see common.lua; a task's name may come after
--       it), then label and frame of each message, then options and lane (as begin_lane in
--       announcement.lua gets them).
--       An empty label: it is in the frame. An empty frame: the message is in another lane; then
--       all messages of the call are.
-- Returns {word, number}: "new" and the first number (below 0: none here); "known" and the first
--       number of the context that is pending, or 0 if it has its outcome, or was finished a short
--       time ago; "full" and the length of the backlog: nothing was recorded. For "unlisted" after
--       them see begin_lane.
local token, context, body = ARGV[1], ARGV[2], ARGV[3]
local timeout, max_backlog = tonumber(ARGV[4]), tonumber(ARGV[5])
local tombstone, remember = tonumber(ARGV[6]), tonumber(ARGV[7])
local code, count = ARGV[8], (#ARGV - 10) / 2

local before = answered(token)
if before then return begin_lane(before, META, ARGV[#ARGV - 1], ARGV[#ARGV]) end

local now = now_ms()
local record = redis.call('HGET', CONTEXTS, context)
if record then
  local settled = redis.call('HEXISTS', OUTCOMES, context) == 1
  return answer(token, 'known', not settled and head(record) or 0, remember)
end
if buried(context, now) then return answer(token, 'known', 0, remember) end

local here = count > 0 and ARGV[10] ~= ''
if max_backlog and max_backlog > 0 and here then
  local held = backlog(now)
  if held + count > max_backlog then return answer(token, 'full', held, remember) end
end

-- The first write needs memory: a full Redis refuses the whole call, and nothing is half recorded.
-- A list whose messages are in other lanes gets no numbers here, because they would be gaps.
local first
if here then
  first = take_numbers(count)
else
  first = -redis.call('HINCRBY', META, 'apart', 1)
end
local marked = count == 1 and mark(first, token, now)
local version = 1
for i = 1, count do version = math.max(version, version_of(ARGV[8 + 2 * i])) end
redis.call('HSET', CONTEXTS, context,
  string.format('%d %.0f %d %.0f\n', version, first, count, tombstone) .. body)
redis.call('ZADD', DEADLINES, now + timeout, context)
for i = 0, first > 0 and count - 1 or -1 do
  local fields = entry(code, ARGV[10 + 2 * i], marked)
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
if not max_backlog then use_reservation(ARGV[5], count) end
if tombstone > 0 then prune_tombstones(now) end
local reply = answer(token, 'new', first, remember)
return begin_lane(reply, META, ARGV[#ARGV - 1], ARGV[#ARGV])
