-- Make a lane known to the workers, and tell them if it is new.
--
-- ARGV: lane. Returns 1 if it was not known, else 0.
return announce(ARGV[1])
