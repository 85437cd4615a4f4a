package bench;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Open, high, low, close, volume, notional and count, in 56 bytes. */
final class Candle {
    double open;
    double high;
    double low;
    double close;
    double volume;
    double notional;
    long count;

    Candle add(Trade trade) {
        double price = trade.price;
        if (count == 0) {
            open = high = low = price;
        } else if (price > high) {
            high = price;
        } else if (price < low) {
            low = price;
        }
        close = price;
        volume += trade.size;
        notional += price * trade.size;
        count++;
        return this;
    }

    static Serde<Candle> serde() {
        return Serdes.serdeFrom((topic, candle) -> candle == null ? null : candle.encode(), (topic, data) -> decode(data));
    }

    private byte[] encode() {
        ByteBuffer out = ByteBuffer.allocate(7 * Double.BYTES);
        out.putDouble(open).putDouble(high).putDouble(low).putDouble(close);
        return out.putDouble(volume).putDouble(notional).putLong(count).array();
    }

    private static Candle decode(byte[] data) {
        if (data == null) {
            return null;
        }
        ByteBuffer in = ByteBuffer.wrap(data);
        Candle candle = new Candle();
        candle.open = in.getDouble();
        candle.high = in.getDouble();
        candle.low = in.getDouble();
        candle.close = in.getDouble();
        candle.volume = in.getDouble();
        candle.notional = in.getDouble();
        candle.count = in.getLong();
        return candle;
    }
}
