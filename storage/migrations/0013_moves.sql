-- How often a memory of a user came to stand at another time: an answer was saved first, and its
-- prompt knew better. Who has counted by days before counts anew, as the change names only the new day.
ALTER TABLE user_state ADD COLUMN moves bigint NOT NULL DEFAULT 0;

CREATE FUNCTION note_move() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = memory_layer, pg_temp
AS $$
BEGIN
    UPDATE memory_layer.user_state SET moves = moves + 1 WHERE user_id = NEW.user_id;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION note_move() FROM PUBLIC;

-- What was deleted counts nowhere; that it was purged, `purges` says.
CREATE TRIGGER note_move AFTER UPDATE ON memories FOR EACH ROW
    WHEN (OLD.deleted_at IS NULL AND OLD.occurred_at <> NEW.occurred_at)
    EXECUTE FUNCTION note_move();
