-- Personal tokens that expired long ago: their owner has seen by then why a program stopped.
CREATE POLICY every_token ON api_tokens FOR SELECT TO memory_layer_janitor USING (true);
CREATE POLICY long_expired ON api_tokens FOR DELETE TO memory_layer_janitor
    USING (expires_at < now() - interval '30 days');
GRANT SELECT (user_id, id, expires_at), DELETE ON api_tokens TO memory_layer_janitor;
