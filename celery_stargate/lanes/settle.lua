-- Give contexts their outcomes, each once: PENDING -> DUE.
--
-- ARGV: lease ("" for a caller that owns nothing), token, grace ms (how long the caller has for
--       the effects before another does them), then context, place in the list, json, kind, ...
--       kind = "ok" (counts from anyone), "error" (counts from the owner), or "foreign" (an error
--       of somebody else: counts for a context without messages)
-- Returns {fenced, answer, answer, ...}, in the order of the arguments:
--       {"due", record, json list}  every message of it has an outcome now, and this call did it
--       {"part"}                    some message of it has none yet
--       {"late"}                    it is settled or finished already, or was never there
--       {"ignored"}                 an error that does not count from this caller
-- A repeat with the same token gets the same answer for what it settled.
local owner = ARGV[1] ~= '' and redis.call('GET', LEASE) == ARGV[1]
local token, at = ARGV[2], now_ms() + tonumber(ARGV[3])
local reply = { (ARGV[1] ~= '' and not owner) and 1 or 0 }

local function settle(context, place, json, kind)
  local record = redis.call('HGET', CONTEXTS, context)
  if not record then return { 'late' } end
  local first, count = head(record)
  if not first then return { 'late' } end
  local settled = redis.call('HGET', OUTCOMES, context)
  if settled then
    local by, list = string.match(settled, '^([^\n]*)\n(.*)$')
    if by == token then return { 'due', record, list } end
    return { 'late' }
  end
  if kind == 'error' and not owner then return { 'ignored' } end
  if kind == 'foreign' and count > 0 then return { 'ignored' } end
  if count <= 1 or place < 0 then
    local list = '[' .. json .. ']'
    make_due(context, list, token, at)
    forget_parts(context, count)
    forget_entries(first, count)
    return { 'due', record, list }
  end
  if place >= count then return { 'late' } end
  if redis.call('HSETNX', OUTCOMES, part(context, place), json) == 0 then return { 'part' } end
  if first > 0 then forget_entries(first + place, 1) end
  redis.call('HSETNX', OUTCOMES, part(context, 'left'), count)
  if redis.call('HINCRBY', OUTCOMES, part(context, 'left'), -1) > 0 then return { 'part' } end
  local parts = {}
  for i = 0, count - 1 do
    parts[#parts + 1] = redis.call('HGET', OUTCOMES, part(context, i))
  end
  local list = '[' .. table.concat(parts, ',') .. ']'
  make_due(context, list, token, at)
  forget_parts(context, count)
  return { 'due', record, list }
end

pass_when_full()
for i = 4, #ARGV, 4 do
  reply[#reply + 1] = settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3])
end
return reply
