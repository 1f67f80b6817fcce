-- The words of each memory as a keyword index takes them in, so that a search need not analyse
-- texts. A row counts only while its analyzer, content_hash and occurred_at are the memory's own.
CREATE TABLE keywords (
    user_id         uuid NOT NULL,
    memory_id       uuid NOT NULL,
    analyzer        smallint NOT NULL,
    content_hash    bytea NOT NULL,
    occurred_at     timestamptz NOT NULL,
    -- How many terms a side has, repeats counted; 0 for a side that is not there.
    prompt_length   integer NOT NULL,
    response_length integer NOT NULL,
    -- Four bytes a distinct term, its hash; and two in the same order, how often it occurs in the
    -- prompt and in the response.
    terms           bytea NOT NULL,
    counts          bytea NOT NULL,
    -- The hashes of the name that a transcript's line begins with.
    speaker         bytea,
    PRIMARY KEY (user_id, memory_id),
    FOREIGN KEY (user_id, memory_id) REFERENCES memories (user_id, id) ON DELETE CASCADE
);

-- Hashes do not compress: spare the attempt.
ALTER TABLE keywords ALTER terms SET STORAGE EXTERNAL, ALTER counts SET STORAGE EXTERNAL;

ALTER TABLE keywords ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON keywords TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY every_row ON keywords TO memory_layer_worker USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON keywords TO memory_layer_app, memory_layer_worker;

-- Bound once like vector_bytes: the extension lies in `public` here and in `extensions` on Supabase.
CREATE FUNCTION as_vector(numbers real[]) RETURNS vector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN numbers::vector;
CREATE FUNCTION cosine_of_units(a vector, b vector) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN inner_product(a, b);
