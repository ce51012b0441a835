-- Record many contexts, each with one message, in order: ABSENT -> PENDING. Idempotent by context,
-- and by token. Marks the message of a single new one that the lane's owner waits for, and announces a
-- lane that begins.
--
-- ARGV: token, deadline after ms, max backlog (as in put), tombstone ms, answer ms (as in put), then
--       context, body, code, frame of each; code: as in put; then options and lane, as in put
-- Returns {word, number}: "new" and the first number of those that are new; one that is pending, or
--       was finished a short time ago, stays as it is. "full" and the length of the backlog: nothing
--       was recorded. "known" and 0: none is new, or this is a copy of a call before the caller's
--       last one. For "unlisted" after them see begin_lane.
local token, timeout, max_backlog = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tombstone, remember = ARGV[4], tonumber(ARGV[5])

local before = answered(token)
if before then return begin_lane(before, META, ARGV[#ARGV - 1], ARGV[#ARGV]) end

local now, new = now_ms(), {}
for i = 6, #ARGV - 2, 4 do
  if redis.call('HEXISTS', CONTEXTS, ARGV[i]) == 0
    and not (tombstone ~= '0' and buried(ARGV[i], now)) then new[#new + 1] = i end
end
if max_backlog and max_backlog > 0 then
  local held = backlog(now)
  if held + #new > max_backlog then return answer(token, 'full', held, remember) end
end
if #new == 0 then return answer(token, 'known', 0, remember) end
-- The first write needs memory: a full Redis refuses the whole call, and nothing is half recorded.
local first = take_numbers(#new)
local marked = #new == 1 and mark(first, token, now)
local records, deadlines, deadline = {}, {}, now + timeout
for place, i in ipairs(new) do
  local number = string.format('%.0f', first + place - 1)
  records[#records + 1] = ARGV[i]
  records[#records + 1] = version_of(ARGV[i + 3]) .. ' ' .. number .. ' 1 ' .. tombstone .. '\n'
    .. ARGV[i + 1]
  deadlines[#deadlines + 1] = deadline
  deadlines[#deadlines + 1] = ARGV[i]
  redis.call('XADD', LOG, number .. '-0', unpack(entry(ARGV[i + 2], ARGV[i + 3], marked)))
end
redis.call('HSET', CONTEXTS, unpack(records))
redis.call('ZADD', DEADLINES, unpack(deadlines))
if not max_backlog then use_reservation(ARGV[3], (#ARGV - 7) / 4) end
if tombstone ~= '0' then prune_tombstones(now) end
local reply = answer(token, 'new', first, remember)
return begin_lane(reply, META, ARGV[#ARGV - 1], ARGV[#ARGV])
