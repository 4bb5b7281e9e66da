-- A database as WalT 7 leaves it (server-state 1.4): log streams have senders and no mode,
-- images may be unfinished, nodes are booted or not, times have no zone.
CREATE TABLE devices (mac text PRIMARY KEY, ip text, name text, type text, virtual boolean DEFAULT false, conf jsonb DEFAULT '{}');
CREATE TABLE topology (mac1 text REFERENCES devices(mac), port1 integer, mac2 text REFERENCES devices(mac), port2 integer, confirmed boolean);
CREATE TABLE images (fullname text PRIMARY KEY, ready boolean);
CREATE TABLE nodes (mac text REFERENCES devices(mac), image text REFERENCES images(fullname), model text, booted boolean DEFAULT false);
CREATE TABLE switches (mac text REFERENCES devices(mac), model text);
CREATE TABLE switchports (mac text REFERENCES devices(mac), port integer, name text, PRIMARY KEY (mac, port));
CREATE TABLE logstreams (id serial PRIMARY KEY, sender_mac text REFERENCES devices(mac), name text);
CREATE TABLE logs (stream_id integer REFERENCES logstreams(id), timestamp timestamp, line text);
CREATE TABLE checkpoints (username text, timestamp timestamp, name text);
CREATE INDEX logs_timestamp_idx ON logs (timestamp);
CREATE INDEX logs_stream_id_idx ON logs (stream_id);
CREATE INDEX logstreams_sender_mac_name_idx ON logstreams (sender_mac, name);

INSERT INTO devices VALUES
	('02:00:00:00:00:01', '192.168.152.1', 'walt-server', 'server', false, '{}'),
	('02:00:00:00:00:02', '192.168.152.2', 'rpi', 'node', false, '{"netsetup": 1}'),
	('02:00:00:00:00:03', '192.168.152.3', 'sw', 'switch', false, '{"lldp.explore": true, "poe.reboots": true, "snmp.version": 2, "snmp.community": "private"}'),
	('02:00:00:00:00:04', NULL, 'bare', 'switch', false, '{}');
INSERT INTO images VALUES ('u/used:latest', true), ('u/unused:latest', true), ('u/half:latest', false);
INSERT INTO nodes VALUES ('02:00:00:00:00:02', 'u/used:latest', 'rpi-3-b', true);
INSERT INTO switches VALUES
	('02:00:00:00:00:03', 'netgear'),
	('02:00:00:00:00:04', NULL);
INSERT INTO topology VALUES ('02:00:00:00:00:02', NULL, '02:00:00:00:00:03', 5, true);
INSERT INTO logstreams (sender_mac, name) VALUES ('02:00:00:00:00:02', 'app'), ('02:00:00:00:00:01', 'platform.nodes');
INSERT INTO logs VALUES (1, '2020-07-14 12:00:00.123456', 'summer'), (1, '2020-01-14 12:00:00', 'winter'), (2, '2020-07-14 12:00:01', 'booted');
INSERT INTO checkpoints VALUES ('u', '2020-07-14 12:00:00', 'cp');
