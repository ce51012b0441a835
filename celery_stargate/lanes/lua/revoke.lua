-- Fail what was not sent of some contexts: PENDING -> DUE. Any process may call it.
--
-- ARGV: token, grace ms, then context, its first number and JSON of its failure, ... (as in settle);
--       with the keys of dead letters their cause comes last ("": none is kept)
-- Returns an answer for each context:
--       {"due", record, JSON list}  all its messages have outcomes now
--       {"part"}                    the rest of a list has failed; messages before it were sent
--       {"sent"}                    nothing was done: all its messages may have been sent
--       {"elsewhere", count}        nothing was done: it is a list whose messages are in other lanes
--       {"late"}                    it was settled or finished before, or never was here; another
--                                   of the same name may be
-- A repeat with the same token gets the same answer for each context that it settled. A copy of a
-- call without numbers, which was held up on its way, changes nothing.
local token, now = ARGV[1], now_ms()
local at, cause = now + tonumber(ARGV[2]), DEAD and ARGV[GIVEN] or ''
if DEAD then GIVEN = GIVEN - 1 end
local copy = false
local sent = tonumber(redis.call('HGET', META, 'sent') or '0')

-- Fail what was not sent of a list; return all its outcomes, or nil if some are still to come.
local function fail_rest(context, record, first, count, json)
  local outcomes, failed = parts_of(context, count), {}
  for i = math.max(0, sent - first + 1), count - 1 do
    if not outcomes[i + 1] then
      outcomes[i + 1] = json
      failed[#failed + 1] = i
      bury(context, record, first, i, cause, json, now)
    end
  end
  local known = 0
  for _, each in ipairs(outcomes) do
    if each then known = known + 1 end
  end
  if known == count then return '[' .. table.concat(outcomes, ',') .. ']' end
  redis.call('HSET', OUTCOMES, part(context, 'left'), count - known)
  for _, i in ipairs(failed) do
    redis.call('HSET', OUTCOMES, part(context, i), json)
    forget_entries(first + i, 1)
  end
end

local function revoke(context, number, json)
  local record = redis.call('HGET', CONTEXTS, context)
  local first, count
  if record then first, count = head(record) end
  if not first or not is_meant(first, number) then return { 'late' } end
  local settled = redis.call('HGET', OUTCOMES, context)
  if settled then
    local by, list = string.match(settled, '^([^\n]*)\n(.*)$')
    if by == token then return { 'due', record, list } end
    return { 'late' }
  end
  if count > 0 and first <= 0 then return { 'elsewhere', count } end
  if count > 0 and first + count - 1 <= sent then return { 'sent' } end
  if copy then
    return { redis.call('HEXISTS', OUTCOMES, part(context, 'left')) == 1 and 'part' or 'late' }
  end
  local list = '[' .. json .. ']'
  if count > 1 then list = fail_rest(context, record, first, count, json) end
  if count == 1 then bury(context, record, first, -1, cause, json, now) end
  if not list then return { 'part' } end
  make_due(context, list, token, at)
  forget_parts(context, count)
  forget_entries(first, count)
  return { 'due', record, list }
end

pass_when_full()
if GIVEN > 2 then copy = is_copy(token, ARGV[4]) end
local reply = {}
for i = 3, GIVEN, 3 do reply[#reply + 1] = revoke(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
prune_letters(now)
return reply
