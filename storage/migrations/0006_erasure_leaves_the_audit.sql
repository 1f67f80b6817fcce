-- The audit goes on to say of which id the operator did what: erasing an account leaves it.
CREATE OR REPLACE FUNCTION erase_some(person uuid, most integer) RETURNS TABLE (kind text, n bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place regclass;
BEGIN
    IF (person = ANY (memory_layer.acting_user_ids())) IS NOT TRUE THEN
        RAISE insufficient_privilege USING MESSAGE = 'the transaction does not act for this person';
    END IF;
    -- What refers to other rows goes before them, or a cascade would hide it from the count.
    FOR place, kind IN
        SELECT c.oid, c.relname::text
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id' AND a.attnum > 0
         WHERE c.relnamespace IN ('memory_layer'::regnamespace, 'memory_layer_auth'::regnamespace)
           AND c.relkind = 'r' AND c.relname NOT IN ('user_state', 'admin_audit')
         ORDER BY (SELECT count(*) FROM pg_constraint f
                    WHERE f.conrelid = c.oid AND f.contype = 'f') DESC, c.relname
    LOOP
        EXECUTE format(
            'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM %1$s WHERE user_id = $1 LIMIT $2 FOR UPDATE))', place)
          USING person, most;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n > 0 THEN
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
    DELETE FROM memory_layer_auth.users WHERE id = person;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        kind := 'users';
        RETURN NEXT;
    END IF;
END
$$;
