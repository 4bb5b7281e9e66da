-- A database as WalT 9.0 leaves it (server-state 1.4): times have no zone.
CREATE TABLE devices (mac text PRIMARY KEY, ip text, name text, type text, virtual boolean DEFAULT false, conf jsonb DEFAULT '{}');
CREATE TABLE topology (mac1 text REFERENCES devices(mac), port1 integer, mac2 text REFERENCES devices(mac), port2 integer, confirmed boolean);
CREATE TABLE images (fullname text PRIMARY KEY);
CREATE TABLE nodes (mac text REFERENCES devices(mac), image text REFERENCES images(fullname), model text);
CREATE TABLE switches (mac text REFERENCES devices(mac), model text);
CREATE TABLE switchports (mac text REFERENCES devices(mac), port integer, name text, PRIMARY KEY (mac, port));
CREATE TYPE logmode AS ENUM ('line', 'chunk');
CREATE TABLE logstreams (id serial PRIMARY KEY, issuer_mac text REFERENCES devices(mac), name text, mode logmode DEFAULT 'line');
CREATE TABLE logs (stream_id integer REFERENCES logstreams(id), timestamp timestamp, line text);
CREATE TABLE poeoff (mac text REFERENCES devices(mac), port integer, reason text);
CREATE TABLE checkpoints (username text, timestamp timestamp, name text);
CREATE INDEX checkpoints_username_idx ON checkpoints (username);
CREATE INDEX devices_ip_idx ON devices (ip);
CREATE INDEX logs_timestamp_idx ON logs (timestamp);
CREATE INDEX logs_stream_id_idx ON logs (stream_id);
CREATE INDEX logstreams_issuer_mac_name_idx ON logstreams (issuer_mac, name);

INSERT INTO devices VALUES
	('02:00:00:00:00:01', '192.168.152.1', 'walt-server', 'server', false, '{}'),
	('02:00:00:00:00:02', '192.168.152.2', 'rpi', 'node', false, '{"netsetup": 1}'),
	('02:00:00:00:00:03', '192.168.152.3', 'sw', 'switch', false, '{"lldp.explore": true, "poe.reboots": true, "snmp.version": 2, "snmp.community": "private"}'),
	('02:00:00:00:00:04', NULL, 'bare', 'switch', false, '{}');
INSERT INTO images VALUES ('u/used:latest'), ('u/unused:latest');
INSERT INTO nodes VALUES ('02:00:00:00:00:02', 'u/used:latest', 'rpi-3-b');
INSERT INTO switches VALUES
	('02:00:00:00:00:03', 'netgear'),
	('02:00:00:00:00:04', NULL);
INSERT INTO topology VALUES ('02:00:00:00:00:02', NULL, '02:00:00:00:00:03', 5, true);
INSERT INTO logstreams (issuer_mac, name) VALUES ('02:00:00:00:00:02', 'app'), ('02:00:00:00:00:01', 'platform.nodes');
INSERT INTO logs VALUES (1, '2020-07-14 12:00:00.123456', 'summer'), (1, '2020-01-14 12:00:00', 'winter'), (2, '2020-07-14 12:00:01', 'booted');
INSERT INTO checkpoints VALUES ('u', '2020-07-14 12:00:00', 'cp');
