-- Personal API tokens. Only the hash is kept: a leaked table must not leak tokens.
CREATE TABLE api_tokens (
    user_id      uuid NOT NULL,
    id           uuid NOT NULL,
    token_hash   bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    name         text NOT NULL,
    scopes       text[] NOT NULL
                 CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'chat']),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (user_id, id)
) WITH (fillfactor = 70);

ALTER TABLE api_tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON api_tokens TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));

-- The hash goes in and never comes out.
GRANT SELECT (user_id, id, name, scopes, created_at, expires_at, last_used_at),
      INSERT, UPDATE (last_used_at), DELETE
   ON api_tokens TO memory_layer_app;

-- Whose token it is, before it is known for whom the transaction acts: only who has the hash may
-- ask. `seconds_left` is by the database's clock, and null for a token that does not expire.
CREATE FUNCTION find_api_tokens(hashes bytea[])
    RETURNS TABLE (token_hash bytea, user_id uuid, id uuid, scopes text[],
                   seconds_left double precision, last_used_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = memory_layer, pg_temp
BEGIN ATOMIC
    SELECT t.token_hash, t.user_id, t.id, t.scopes,
           extract(epoch FROM t.expires_at - now())::double precision, t.last_used_at
      FROM memory_layer.api_tokens t
     WHERE t.token_hash = ANY (hashes) AND (t.expires_at IS NULL OR t.expires_at > now());
END;
REVOKE ALL ON FUNCTION find_api_tokens(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_api_tokens(bytea[]) TO memory_layer_app;
