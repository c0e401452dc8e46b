// An IndexedDB that misbehaves as real ones do: denied, full, slow to commit, closed by the browser.

import { IDBFactory } from 'fake-indexeddb'

export class Faults {
  /** Whether a transaction that puts this value is taken back, as at the end of the quota. */
  full = () => false
  /** Whether it says that this is for want of room. */
  isQuota = false
  /** No transaction begins. */
  broken = false
  /** Those that are complete are told so only by `release()`. */
  held = false
  /** None that begins comes to its commit. */
  stuck = false
  #pending = []
  databases = []
  /** How many are open. */
  open = 0

  factory () {
    this.disk = new IDBFactory()
    return { open: (name, version) => this.#watch(this.disk.open(name, version)) }
  }

  /** As when the browser is short of room: all of the site's data goes. */
  evict () {
    this.disk = new IDBFactory()
    this.closeAll()
  }

  release () {
    this.held = false
    for (const tell of this.#pending.splice(0)) tell()
  }

  /** As when the user removes the site's data: the connection closes, and the browser says so. */
  closeAll () {
    for (const database of this.databases.splice(0)) {
      database.close()
      database.onclose?.()
    }
  }

  #watch (request) {
    request.addEventListener('success', () => {
      const database = request.result
      this.databases.push(database)
      this.open++
      const close = database.close.bind(database)
      database.close = () => {
        this.open--
        close()
      }
      const begin = database.transaction.bind(database)
      database.transaction = (...options) => {
        if (this.broken) throw new DOMException('Internal error', 'UnknownError')
        return this.#watchTransaction(begin(...options))
      }
    })
    return request
  }

  #takeBack (transaction) {
    try {
      if (this.isQuota) transaction.error = new DOMException('', 'QuotaExceededError')
      transaction.abort()
    } catch {} // it is over
  }

  #watchTransaction (transaction) {
    Object.defineProperty(transaction, 'oncomplete', { set: (then) => transaction.addEventListener('complete', () => { if (this.held) this.#pending.push(then); else then() }) })
    const open = transaction.objectStore.bind(transaction)
    const { stuck } = this
    transaction.objectStore = (name) => {
      const store = open(name)
      const on = () => { store.count().onsuccess = on }
      if (stuck) on()
      const put = store.put.bind(store)
      store.put = (value, key) => {
        if (this.full(value)) setImmediate(() => this.#takeBack(transaction))
        return put(value, key)
      }
      return store
    }
    return transaction
  }
}
