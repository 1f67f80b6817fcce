-- The charts of the panel add up a week of rows: from this index alone, past their histograms.
CREATE INDEX traffic_sums ON traffic (slot) INCLUDE (route, requests, errors, refused);
