-- Record many contexts, each with one message, in their order: ABSENT -> PENDING. Idempotent by token.
--
-- ARGV: token, deadline after ms, answer ms (as in put), then context, body, mark, frame, ...
--       mark: as in put; and last, where contexts may be put again, the tombstone ms of each
-- Returns {"new", first number}. A context that is there already, or has a tombstone, stays as it
-- is.
local token, timeout, remember = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local tombstone = #ARGV % 4 == 0 and tonumber(ARGV[#ARGV]) or 0

local answered = redis.call('GET', ANSWERS)
if answered then
  local by, number = string.match(answered, '^([^\n]*)\nnew (%d+)$')
  if by == token then return { 'new', tonumber(number) } end
end

-- Only a context that leaves a tombstone can have left one.
local function ended(context)
  if tombstone == 0 then return false end
  local until_ms = redis.call('ZSCORE', TOMBSTONES, context)
  return until_ms and tonumber(until_ms) > now_ms()
end

local new = {}
for i = 4, #ARGV - 3, 4 do
  if redis.call('HEXISTS', CONTEXTS, ARGV[i]) == 0 and not ended(ARGV[i]) then new[#new + 1] = i end
end
-- The first write needs memory: a full Redis refuses it, and nothing is half recorded.
local first = redis.call('HINCRBY', META, 'last', #new) - #new + 1
local records, deadlines, deadline = {}, {}, now_ms() + timeout
for place, i in ipairs(new) do
  local number = string.format('%.0f', first + place - 1)
  records[#records + 1] = ARGV[i]
  records[#records + 1] = '1 ' .. number .. string.format(' 1 %.0f\n', tombstone) .. ARGV[i + 1]
  deadlines[#deadlines + 1] = deadline
  deadlines[#deadlines + 1] = ARGV[i]
  redis.call('XADD', LOG, number .. '-0', unpack(entry(ARGV[i + 2], ARGV[i + 3])))
end
if #new > 0 then
  redis.call('HSET', CONTEXTS, unpack(records))
  redis.call('ZADD', DEADLINES, unpack(deadlines))
end
redis.call('SET', ANSWERS, token .. '\nnew ' .. string.format('%.0f', first), 'PX', remember)
return { 'new', first }
