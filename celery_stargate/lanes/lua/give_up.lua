-- Forget contexts whose effects are over in another way than by success: DUE -> ABSENT. Idempotent.
--
-- ARGV: context, its first number (as in settle), cause, ... An empty cause: the task is tried again,
--       so that the failure of this attempt is no dead letter. Any other: the effects failed; they are
--       kept as a dead letter if there is none of the message.
-- Returns how many contexts this call finished.
local now, finished = now_ms(), 0

-- Take the dead letter of a message away if it is of this attempt.
local function tried_again(id, number)
  local found = letter_of(id)
  if found and tonumber(found.number) == number then
    redis.call('HINCRBY', COUNTS, 'retried', 1)
    forget_letter(id)
  end
end

local function give_up(context, record, outcomes, cause)
  local first, count = head(record)
  local body = string.match(record, '^[^\n]*\n(.*)$')
  local id = letter_id(context, body)
  if cause == '' then
    for i = 0, count > 1 and count - 1 or -1 do tried_again(part_id(id, i), first + i) end
    return tried_again(id, first)
  end
  local found = letter_of(id)
  if found and tonumber(found.number) == first then return end
  local failures, begun = history_of(id, body, now)
  local list = string.match(outcomes, '^[^\n]*\n(.*)$')
  keep_letter(id, 'e', failures + 1, begun, now, first, cause, '1', record .. '\n' .. list)
  redis.call('HINCRBY', COUNTS, 'recorded', 1)
end

for i = 1, GIVEN, 3 do
  local context, outcomes = ARGV[i], redis.call('HGET', OUTCOMES, ARGV[i])
  local record = finish(context, ARGV[i + 1], now)
  if record then
    finished = finished + 1
    if MAX_COUNT then give_up(context, record, outcomes, ARGV[i + 2]) end
  end
end
prune_tombstones(now)
prune_letters(now)
return finished
