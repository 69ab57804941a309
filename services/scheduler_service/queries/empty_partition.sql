-- Empties one day of history.
TRUNCATE taskforge.{partition}
