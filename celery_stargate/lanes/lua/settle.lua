-- Give contexts their outcomes, each once: PENDING -> DUE.
--
-- ARGV: lease ("" for a caller that does not own the lane), token, grace ms (how long the caller
--       has for the effects before another process does them), then context, its first number (see
--       common.lua; "": whichever), place in its list (-1: the whole context), JSON, kind of each
--       outcome.
--       kind: "ok" counts from any caller; "error" counts from the owner; "foreign" is a failure
--       from a caller that is not the owner, and counts for a context without messages. After a
--       failure's kind a line break and its cause may come: then it is kept (dead_letters.lua)
-- Returns {fenced, answer, answer, ...}, in the order of the arguments; fenced is 1 if the lease
--       was given and another process has it. Answers:
--       {"due", record, JSON list}  this call settled the context: all its messages have outcomes
--       {"part"}                    other messages of the context have no outcome yet
--       {"late"}                    the context was settled or finished before, or never was there;
--                                   another of the same name may be
--       {"ignored"}                 a failure that does not count from this caller
-- A repeat with the same token gets the same answer for each context that it settled, and for each
-- part. A copy of a caller's call without numbers, which was held up on its way, settles nothing.
local owner = ARGV[1] ~= '' and redis.call('GET', LEASE) == ARGV[1]
local token, now = ARGV[2], now_ms()
local at = now + tonumber(ARGV[3])
local reply, copy = { (ARGV[1] ~= '' and not owner) and 1 or 0 }, false

local function settle(context, number, place, json, kind)
  local record = redis.call('HGET', CONTEXTS, context)
  if not record then return { 'late' } end
  local first, count = head(record)
  if not first or not is_meant(first, number) then return { 'late' } end
  local settled = redis.call('HGET', OUTCOMES, context)
  if settled then
    local by, list = string.match(settled, '^([^\n]*)\n(.*)$')
    if by == token then return { 'due', record, list } end
    return { 'late' }
  end
  local cause
  if kind ~= 'ok' then
    kind, cause = string.match(kind, '^(%a+)\n?(.*)$')
  end
  if kind == 'error' and not owner then return { 'ignored' } end
  if kind == 'foreign' and count > 0 then return { 'ignored' } end
  if copy then
    local known = count > 1 and place >= 0 and place < count
      and redis.call('HEXISTS', OUTCOMES, part(context, place)) == 1
    return { known and 'part' or 'late' }
  end
  if count <= 1 or place < 0 then
    local list = '[' .. json .. ']'
    local known = cause and count > 1 and parts_of(context, count) or {}
    for i = 0, cause and count - 1 or -1 do
      if not known[i + 1] then
        bury(context, record, first, count > 1 and i or -1, cause, json, now)
      end
    end
    make_due(context, list, token, at)
    forget_parts(context, count)
    forget_entries(first, count)
    return { 'due', record, list }
  end
  if place >= count then return { 'late' } end
  if redis.call('HSETNX', OUTCOMES, part(context, place), json) == 0 then return { 'part' } end
  if cause then bury(context, record, first, place, cause, json, now) end
  if first > 0 then forget_entries(first + place, 1) end
  redis.call('HSETNX', OUTCOMES, part(context, 'left'), count)
  if redis.call('HINCRBY', OUTCOMES, part(context, 'left'), -1) > 0 then return { 'part' } end
  local list = '[' .. table.concat(parts_of(context, count), ',') .. ']'
  make_due(context, list, token, at)
  forget_parts(context, count)
  return { 'due', record, list }
end

-- Settle messages of one list, ARGV[from] up to ARGV[to - 1], with few commands; the answers are
-- those of settle(). Returns false, having done nothing, if settle() must look at each of them.
local function settle_parts(context, from, to)
  local record = redis.call('HGET', CONTEXTS, context)
  local first, count
  if record then first, count = head(record) end
  local given = (to - from) / 5
  if not first or not is_meant(first, ARGV[from + 1]) or count < given
    or redis.call('HEXISTS', OUTCOMES, context) == 1 then return false end
  local names, numbers, fields, seen = {}, {}, {}, {}
  for i = from, to - 1, 5 do
    local place = tonumber(ARGV[i + 2])
    if place < 0 or place >= count or seen[place] or ARGV[i + 4] ~= 'ok' then return false end
    seen[place] = true
    names[#names + 1] = part(context, place)
    numbers[#numbers + 1] = string.format('%.0f-0', first + place)
    fields[#fields + 1] = names[#names]
    fields[#fields + 1] = ARGV[i + 3]
  end
  for _, known in ipairs(redis.call('HMGET', OUTCOMES, unpack(names))) do
    if known then return false end
  end
  local left = tonumber(redis.call('HGET', OUTCOMES, part(context, 'left')) or count) - given
  redis.call('HSET', OUTCOMES, part(context, 'left'), left, unpack(fields))
  if first > 0 then redis.call('XDEL', LOG, unpack(numbers)) end
  for _ = 1, given do reply[#reply + 1] = { 'part' } end
  if left > 0 then return true end
  local list = '[' .. table.concat(parts_of(context, count), ',') .. ']'
  make_due(context, list, token, at)
  forget_parts(context, count)
  reply[#reply] = { 'due', record, list }
  return true
end

pass_when_full()
if ARGV[1] == '' and GIVEN > 3 then copy = is_copy(token, ARGV[5]) end
local i = 4
while i <= GIVEN do
  local context, number, to = ARGV[i], ARGV[i + 1], i + 5
  while ARGV[to] == context and ARGV[to + 1] == number and to - i < 5 * FIELDS do to = to + 5 end
  if to - i == 5 or copy or not settle_parts(context, i, to) then
    for each = i, to - 1, 5 do
      reply[#reply + 1] = settle(context, number, tonumber(ARGV[each + 2]), ARGV[each + 3],
        ARGV[each + 4])
    end
  end
  i = to
end
prune_letters(now)
return reply
