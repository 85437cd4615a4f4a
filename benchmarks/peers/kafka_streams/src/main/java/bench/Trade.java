package bench;

/** One trade, as Jackson fills it in. */
public final class Trade {
    public String symbol;
    public double price;
    public double size;
    public long event_time;
    public String trade_id;
    public String side;
}
