-- Settle the contexts whose deadline has passed: PENDING -> DUE. Any process may call it. Those that
-- one call leaves are overdue still, and the next call settles them.
--
-- ARGV: grace ms (as in settle), max count, context ("" for all that are overdue), cause of dead
--       letters (dead_letters.lua; "" or left out: none is kept)
-- Returns {context, record, JSON list, ...}. In the list, a message without an outcome is 1 if it
--       may have been sent, from here or from another lane, and 0 if it was not.

-- How many messages are enough for one call, which must not occupy Redis for long. The context that
-- they end in is settled whole.
local ENOUGH = 500

local now = now_ms()
local at = now + tonumber(ARGV[1])
local overdue
if ARGV[3] == '' then
  overdue = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
else
  local deadline = redis.call('ZSCORE', DEADLINES, ARGV[3])
  overdue = (deadline and tonumber(deadline) <= now) and { ARGV[3] } or {}
end
local sent = tonumber(redis.call('HGET', META, 'sent') or '0')
local reply, settled = {}, 0
if #overdue > 0 then pass_when_full() end
for _, context in ipairs(overdue) do
  if settled >= ENOUGH then break end
  local record = redis.call('HGET', CONTEXTS, context)
  local first, count
  if record then first, count = head(record) end
  if not record then
    redis.call('ZREM', DEADLINES, context)
  elseif not first then
    -- A record of another version: look at it again later; processes that can read it settle it.
    redis.call('ZADD', DEADLINES, now + 60000, context)
  else
    local parts, found = {}, count > 1 and parts_of(context, count) or {}
    for i = 0, math.max(count, 1) - 1 do
      local known = found[i + 1]
      if not known then
        known = (count > 0 and (first < 0 or first + i <= sent)) and '1' or '0'
        if count > 0 then
          bury(context, record, first, count > 1 and i or -1, ARGV[4], known, now)
        end
      end
      parts[#parts + 1] = known
    end
    local list = '[' .. table.concat(parts, ',') .. ']'
    make_due(context, list, 'deadline', at)
    forget_parts(context, count)
    forget_entries(first, count)
    reply[#reply + 1] = context
    reply[#reply + 1] = record
    reply[#reply + 1] = list
    settled = settled + count
  end
end
prune_letters(now)
return reply
