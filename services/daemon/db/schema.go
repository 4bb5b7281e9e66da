package db

// schema makes what is missing of upstream's schema (server-state 1.2, 1.3): an
// empty database becomes the one of WalT 10.0, and one of WalT 10.0 is left alone.
// Columns have no more constraints than upstream gives them. Table logs is made by
// partLogs.
const schema = `
CREATE TABLE IF NOT EXISTS devices (
	mac text PRIMARY KEY,
	ip text,
	name text,
	type text,
	virtual boolean DEFAULT false,
	conf jsonb DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS topology (
	mac1 text REFERENCES devices(mac),
	port1 integer,
	mac2 text REFERENCES devices(mac),
	port2 integer,
	confirmed boolean,
	last_seen timestamp with time zone
);
CREATE TABLE IF NOT EXISTS images (
	fullname text PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS nodes (
	mac text REFERENCES devices(mac),
	image text REFERENCES images(fullname),
	model text
);
CREATE TABLE IF NOT EXISTS switches (
	mac text REFERENCES devices(mac),
	model text
);
CREATE TABLE IF NOT EXISTS switchports (
	mac text REFERENCES devices(mac),
	port integer,
	name text,
	PRIMARY KEY (mac, port)
);
DO $$ BEGIN
	IF to_regtype('logmode') IS NULL THEN
		CREATE TYPE logmode AS ENUM ('line', 'chunk');
	END IF;
END $$;
CREATE TABLE IF NOT EXISTS logstreams (
	id serial PRIMARY KEY,
	issuer_mac text REFERENCES devices(mac),
	name text,
	mode logmode DEFAULT 'line'
);
CREATE TABLE IF NOT EXISTS checkpoints (
	username text,
	timestamp timestamp without time zone,
	name text
);
CREATE TABLE IF NOT EXISTS poeoff (
	mac text REFERENCES devices(mac),
	port integer,
	reason text
);
CREATE TABLE IF NOT EXISTS vpnauth (
	vpnmac text PRIMARY KEY,
	pubkeycert text,
	certid text,
	device_label text,
	revoked boolean DEFAULT false
);
CREATE TABLE IF NOT EXISTS vpnnodes (
	mac text REFERENCES devices(mac),
	vpnmac text REFERENCES vpnauth(vpnmac)
);

-- Not upstream's: the last batch of log lines that is stored of each sender, see Batch.
CREATE TABLE IF NOT EXISTS logs_batches (
	sender bigint PRIMARY KEY,
	last bigint NOT NULL,
	stored timestamp with time zone NOT NULL
);

CREATE INDEX IF NOT EXISTS logstreams_issuer_mac_name_idx ON logstreams (issuer_mac, name);
CREATE INDEX IF NOT EXISTS devices_ip_idx ON devices (ip);
CREATE INDEX IF NOT EXISTS checkpoints_username_idx ON checkpoints (username);
`

const logsTable = `
CREATE TABLE logs (
	stream_id integer REFERENCES logstreams(id),
	timestamp timestamp with time zone,
	line text
) PARTITION BY RANGE (timestamp);
`

const logsIndexes = `
CREATE INDEX IF NOT EXISTS logs_timestamp_idx ON logs (timestamp);
CREATE INDEX IF NOT EXISTS logs_stream_id_idx ON logs (stream_id);
`
