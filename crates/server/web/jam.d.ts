export type Message = {
    /**
     * Unique and ascending in this browser: the key of a list, and what `history` pages by. It does not depend on a clock.
     */
    order: number;
    /**
     * The sender's id of the message; what `retry` and `cancel` take. Always there in own messages.
     */
    id: string | null;
    /**
     * Whose conversation it belongs to: a user id.
     */
    friend: string;
    /**
     * The sender's user id.
     */
    from: string;
    /**
     * Whether this user has written it.
     */
    own: boolean;
    /**
     * `other` is content of a shape that is neither: its JSON.
     */
    kind: 'text' | 'picture' | 'other';
    /**
     * A Blob if it is a picture (its `type` is `image/jpeg`, `image/png`, `image/webp` or `image/gif`), else text. Show it as text: a friend may write anything.
     */
    content: string | Blob;
    /**
     * The message's own `type`, 0 as a rule.
     */
    type: string | number | null;
    /**
     * When the sender has written it, by the sender's clock, which may be wrong; when it arrived if the message does not say.
     */
    timestamp: number;
    /**
     * When this browser has stored it, by its clock.
     */
    arrived: number;
    /**
     * Own messages: `queued` in the outbox, `sent` the server has it (✓), `delivered` a device of the friend has it (✓✓), `failed` refused for good, see `reason`; `retry` queues it again. `cancelled` only in an `update`: it is gone.
     */
    state: 'received' | 'queued' | 'sent' | 'delivered' | 'failed' | 'cancelled';
    /**
     * Why it is `failed`; or, while it is `queued`, why the last try did not succeed. It is tried again by itself then.
     */
    reason: Reason | null;
};
export type Reason = {
    /**
     * `authorizePublish` and the like, as PROTOCOL.md has them; null if it was not the server.
     */
    handler: string | null;
    /**
     * The server's: `friends`, `quota`, `rate`, `mailbox`, `payload`, `topic` …, `api_token`, `spam`, `id`. Own ones: `size` (larger than the server takes), `network`, `store`, `protocol`, `token`, `server`, `stopped`, `takeover`, `logout`.
     */
    category: string;
    /**
     * One line of English.
     */
    message: string;
    /**
     * MQTT 5's reason code, if there was one.
     */
    code: number | null;
};
export type State = {
    /**
     * `waiting` tries again by itself at `retryAt`. The last three only after `start()`: `logout` another device has taken over, `refused` the login is wrong, `failed` trying again would not help.
     */
    state: 'stopped' | 'connecting' | 'connected' | 'waiting' | 'logout' | 'refused' | 'failed';
    /**
     * When the next try is, in milliseconds since 1970; only in `waiting`.
     */
    retryAt: number | null;
    /**
     * Why it is not connected; null if nothing is wrong.
     */
    reason: Reason | null;
    /**
     * Whether it is about this tab's own token. false where another tab has connected with another token: it says nothing of the one that was given here.
     */
    own: boolean;
};
export type Friend = {
    /**
     * The user id.
     */
    user: string;
    /**
     * The name, or the user id where there is none.
     */
    name: string;
    /**
     * Whether this user has blocked them.
     */
    blocked: boolean;
    publicKey: string | null;
    /**
     * false also while this tab does not know.
     */
    online: boolean;
};
export type Conversation = {
    /**
     * A user id. It may be of somebody who is no friend any more.
     */
    friend: string;
    /**
     * Of somebody who is no friend any more: what they were called when they still were.
     */
    name?: string;
    /**
     * The newest message.
     */
    last: Message | null;
    /**
     * How many messages of the friend are not read.
     */
    unread: number;
    /**
     * `order` of the newest message when `read` was called last: what is greater, and not own, is new.
     */
    mark: number;
};
export type Payload = {
    from: string;
    id?: unknown;
    timestamp?: unknown;
    content?: unknown;
    type?: unknown;
    [more: string]: unknown;
};
export type Options = {
    /**
     * `wss://host/mqtt`. By default `/mqtt` of the page's own host.
     */
    url?: string;
    /**
     * The user id.
     */
    user: string;
    /**
     * The API token, or what gives it: asked before each connection; with `refused: true` once after the server has refused the last one.
     */
    token: string | ((why: {
        refused: boolean;
    }) => string | Promise<string>);
    /**
     * The device id. By default `web-` and 16 hexadecimal digits, kept for this user in this browser.
     */
    device?: string;
    /**
     * Name of the IndexedDB database, `jam` by default. null keeps all in this page's memory.
     */
    store?: string | null;
    /**
     * Called once for each message, before it is queued. `from` and `id` stay as they are. When it throws, or has no answer in 30 s, `send` rejects.
     */
    encode?: (payload: Payload, friend: string) => Payload | Promise<Payload>;
    /**
     * Called for each message that arrives, before it is stored. One that it throws at, or has no answer to in 10 s, is stored as it came.
     */
    decode?: (payload: Payload, friend: string) => Payload | Promise<Payload>;
    /**
     * Opt in: what to show of a message that arrives while the page is hidden. The page asks for the permission.
     */
    notify?: (message: Message) => {
        title: string;
        body?: string;
        icon?: string;
    } | null;
    /**
     * Unread messages in `document.title`, as `(3) …`, and on the app's icon; true by default.
     */
    badge?: boolean;
};
export type Events = {
    state: State;
    /**
     * The whole list, each time.
     */
    friends: {
        friends: Friend[];
    };
    /**
     * A new message, own or received, in whatever tab. Each once.
     */
    message: Message;
    /**
     * An own message whose `state` or `reason` has changed.
     */
    update: Message;
    presence: {
        user: string;
        online: boolean;
    };
    unread: {
        friend: string;
        unread: number;
    };
    /**
     * Something that the user should know and that belongs to no own message, such as `store`: a message has arrived and cannot be stored. It is not acknowledged, so the server keeps it.
     */
    error: Reason;
    /**
     * Another device of this user has connected (`logout`), or the same device elsewhere (`takeover`). `start()` takes it back.
     */
    logout: Reason;
    /**
     * Whether this tab has the connection.
     */
    leader: {
        leader: boolean;
    };
};
/** A user, in this browser. */
export declare class Jam extends EventTarget {
    #private;
    /**
     * @param {Options} options
     * @param {object} [world]  For tests: what stands for the browser's clock, sockets and the like.
     */
    constructor(options: Options, world?: object);
    /** @returns {State} */
    get state(): State;
    /** Whether this tab has the connection. */
    get leader(): boolean;
    /** Whether messages survive a reload: false where IndexedDB is denied. Known once `start()` is done. */
    get persistent(): boolean;
    /** The friends as last told; before a connection, as they were kept. @returns {Friend[]} */
    get friends(): Friend[];
    /** How many messages of a friend are not read; friends without any are missing. @returns {Map<string, number>} */
    get unread(): Map<string, number>;
    /**
     * @template {keyof Events} T
     * @param {T} type
     * @param {(event: CustomEvent<Events[T]>) => void} listener
     * @returns {() => void}  Ends it.
     */
    on<T extends keyof Events>(type: T, listener: (event: CustomEvent<Events[T]>) => void): () => void;
    /** Connects. Called again: connects now, whatever it is waiting for, also after `logout` and `refused`. Resolves when the store is open. */
    start(): Promise<void>;
    /**
     * Puts a message into the outbox. Resolves when it is stored: it goes out now or later, also after a reload.
     *
     * @param {string} friend  A user id.
     * @param {unknown} content  Text; a Blob or Uint8Array with a picture, which goes as an array of byte values; or any other JSON.
     * @param {{ type?: string | number, id?: string }} [more]  The message's `type`, 0 by default; and an `id` of your own, at most 256 bytes, by default a UUID. What was queued with it before is not queued again.
     * @returns {Promise<Message>}
     */
    send(friend: string, content: unknown, { type, id }?: {
        type?: string | number;
        id?: string;
    }): Promise<Message>;
    /** Queues a message again that has `failed`; of one that waits for its next try, makes it now. @param {string} id */
    retry(id: string): Promise<boolean>;
    /**
     * Removes a message that is `queued` or `failed`. It stays, and the answer is false, when it may have reached the server already.
     *
     * @param {string} id
     */
    cancel(id: string): Promise<boolean>;
    /**
     * Messages with a friend, the oldest first: the newest `limit` of them, or those right before the `order` that is `before`.
     *
     * @param {string} friend
     * @param {{ before?: number, limit?: number }} [page]
     * @returns {Promise<Message[]>}
     */
    history(friend: string, { before, limit }?: {
        before?: number;
        limit?: number;
    }): Promise<Message[]>;
    /** All conversations, that with the newest message first. @returns {Promise<Conversation[]>} */
    conversations(): Promise<Conversation[]>;
    /** All messages of a friend are read. @param {string} friend */
    read(friend: string): Promise<void>;
    /** Ends the connection of this tab; another tab takes it. `start()` may follow. */
    stop(): Promise<void>;
    /** Removes everything of this user from this browser, in all tabs, and ends the session with the server. */
    forget(): Promise<void>;
}
