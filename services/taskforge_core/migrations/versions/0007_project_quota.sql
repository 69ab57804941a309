-- How many projects an organisation may have: each brings quotas of its own, so who could make as many as
-- he likes would have none. NULL is no limit.
ALTER TABLE taskforge.organisations
    ADD COLUMN max_projects integer CHECK (max_projects BETWEEN 1 AND 100000);
