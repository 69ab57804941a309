-- Tells the planner what a table holds now; every plan that was made before is made anew.
--
-- Guarantee: it waits for nobody. A table that is being vacuumed is skipped.
ANALYZE (SKIP_LOCKED) taskforge.{table}
