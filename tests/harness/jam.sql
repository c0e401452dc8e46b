-- The jam database as the first implementation's web server creates it (PROTOCOL.md, section 6).
CREATE TABLE accounts (
    user_id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_email TEXT UNIQUE,
    username TEXT UNIQUE,
    user_password_hash TEXT,
    user_notification_token TEXT,
    user_api_token TEXT,
    inactive BOOLEAN DEFAULT TRUE,
    public_key TEXT
);
CREATE TABLE user_friends (
    user_id INTEGER,
    friend_id INTEGER,
    blocked BOOLEAN DEFAULT FALSE,
    been_blocked BOOLEAN DEFAULT FALSE,
    PRIMARY KEY (user_id, friend_id)
);
CREATE TABLE user_devices (
    user_id INTEGER PRIMARY KEY,
    device_id TEXT
);
