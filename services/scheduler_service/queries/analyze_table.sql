-- Tells the planner what a table holds now; every plan that was made before is made anew.
--
-- Guarantee: it waits for nobody. A table that is being vacuumed is skipped.
--
-- $1 the table's name, quoted where need be
SELECT taskforge.analyze_table(('taskforge.' || $1::text)::regclass)
