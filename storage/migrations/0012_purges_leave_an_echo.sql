-- A site that names no message gives its export no id by which a purged memory would be known. What
-- stays of such a one is 32 bits of a hash of prompt and time, with the owner's id as salt: too few to
-- prove a guessed text by, and enough not to bring it back.
ALTER TABLE memories ADD COLUMN echo bigint;
CREATE INDEX memories_echo ON memories (user_id, echo) WHERE echo IS NOT NULL;

-- A site's clock and ours differ: ask for the ten minutes before and behind, too (slot -1 and 1).
CREATE FUNCTION echo_of(owner uuid, prompt text, at timestamptz, slot integer) RETURNS bigint
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog
    RETURN ('x' || encode(substr(sha256(convert_to(
        owner::text || (floor(extract(epoch FROM at) / 600)::bigint + slot)::text || ' '
            || regexp_replace(prompt, '\s+', '', 'g'), 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint;
