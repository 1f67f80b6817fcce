-- How well people's extensions read the sites: totals of one installation, site and day.
CREATE TABLE capture_health (
    user_id         uuid NOT NULL,
    installation    uuid NOT NULL,
    day             date NOT NULL,
    site            text NOT NULL,
    version         text NOT NULL,
    network         integer NOT NULL,
    dom             integer NOT NULL,
    missed          integer NOT NULL,
    partial         integer NOT NULL,
    empty           integer NOT NULL,
    unreadable      integer NOT NULL,
    unknown_streams integer NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, day, site, installation)
) WITH (fillfactor = 70);

CREATE INDEX capture_health_by_day ON capture_health (day, site);

ALTER TABLE capture_health ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON capture_health TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY panel ON capture_health FOR SELECT TO memory_layer_admin USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON capture_health TO memory_layer_app;
-- Whose they are is nothing that a chart needs to know.
GRANT SELECT (day, site, version, network, dom, missed, partial, empty, unreadable,
              unknown_streams, updated_at)
   ON capture_health TO memory_layer_admin;
