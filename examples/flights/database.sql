-- The tables of examples/flights/database.py.

-- The totals of each carrier: one row for each, updated.
CREATE TABLE carrier_delays (
    carrier text PRIMARY KEY,
    flights bigint NOT NULL,
    departed bigint NOT NULL,
    minutes bigint NOT NULL,
    worst bigint NOT NULL
);

-- One row for each cancelled flight. It has no key: a flight that was written twice would be here twice.
CREATE TABLE cancelled_flights (
    carrier text NOT NULL,
    flight bigint NOT NULL,
    tailnum text,
    origin text NOT NULL,
    dest text NOT NULL
);
