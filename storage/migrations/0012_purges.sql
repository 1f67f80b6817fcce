-- How often something of a user was forgotten for good. A cache that was made before holds what its
-- words were: on every replica it is made anew.
ALTER TABLE user_state ADD COLUMN purges bigint NOT NULL DEFAULT 0;
GRANT UPDATE (purges) ON user_state TO memory_layer_app, memory_layer_worker;
