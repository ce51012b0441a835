-- Let effects that failed be done again, each in one step: ABSENT -> DUE.
--
-- ARGV: id, its last failure (as in replay), context of its record, ...
-- Returns a word for each, as in replay. The owner of the lane does the effects.
local now, reply = now_ms(), {}

local function redo(id, last, context)
  local found = letter_of(id)
  if not found or found.last ~= last or found.kind ~= 'e' then return 'gone' end
  if redis.call('HEXISTS', CONTEXTS, context) == 1 then return 'known' end
  local record, outcomes = string.match(redis.call('HGET', BODIES, id), '^([^\n]*\n.*)\n([^\n]*)$')
  redis.call('HSET', CONTEXTS, context, record)
  make_due(context, outcomes, 'redo', now)
  redis.call('HINCRBY', COUNTS, 'replayed', 1)
  forget_letter(id)
  return 'done'
end

for i = 1, GIVEN, 3 do reply[#reply + 1] = redo(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return reply
